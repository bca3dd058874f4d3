"""The subcommands of `trellis2-modal`: one module each, with a click command named `command`.

A new one is a module here and a line in `COMMANDS` of the package above. Start reading in `generate`.
"""
