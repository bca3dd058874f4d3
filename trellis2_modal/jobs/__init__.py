"""Jobs: what a job is, when it is accepted, and who runs it, on this machine (`local`) or on Modal (`modal`).

Start reading in `job` (what a job is), then `engine` (what happens to it), then `ports` (what that stands
on). Imports the protocol, and `trellis2.progress` in what runs beside the model.
"""
