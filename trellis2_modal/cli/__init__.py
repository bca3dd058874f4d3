"""The command `trellis2-modal`: one file a subcommand, imported only when it is called.

A subcommand is a module of `commands` with a click command named `command`. `COMMANDS` says what exists,
so that `--help` stays fast. Exit codes are in `exits`.
"""

from __future__ import annotations

import difflib
import importlib
import os

import click

COMMANDS: dict[str, str] = {
    "generate": "A picture to a GLB and a preview video.",
    "batch": "A folder or a list of pictures to files, resumable.",
    "texture": "A mesh and a picture to the mesh with new textures.",
    "extract": "A kept state to a file with other settings.",
    "check": "How sound 3D files are, ours or another's.",
    "jobs": "List, watch, cancel and download your jobs.",
    "estimate": "What a generation and its file would take and cost.",
    "usage": "Your limits and what is left of them.",
    "health": "Whether the service runs and what it offers.",
    "app": "The desktop web app.",
    "mcp": "The service as tools for agents, on stdin and stdout.",
    "serve": "Run the service on this machine.",
    "keys": "Create, list, revoke and rotate API keys.",
    "doctor": "What is installed, what is picked, and why.",
    "demo": "An example picture to a GLB and a video, in demo/.",
}


TOGETHER = {"health": ("status", "health"), "usage": ("status", "usage")}
"""Commands that share a module: which, and the function there."""


class LazyGroup(click.Group):
    """Imports a subcommand's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function = TOGETHER.get(cmd_name, (cmd_name, "command"))
        command: click.Command = getattr(importlib.import_module(f".commands.{module}", __name__), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = difflib.get_close_matches(args[0], COMMANDS, n=2)
        if close and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {' or '.join(close)}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trellis2-modal", prog_name="trellis2-modal")
def main() -> None:
    """A photo goes in, a textured 3D asset comes out."""
    # OpenMP reads it once, in this process and in those that it starts: threads that spin while they wait for
    # one another stand still for minutes where other programs have the cores (benchmarks/NOTES.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
