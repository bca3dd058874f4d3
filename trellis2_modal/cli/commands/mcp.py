"""`trellis2-modal mcp`: the service as tools for agents (Model Context Protocol, on stdin and stdout)."""

from __future__ import annotations

from pathlib import Path

import click

from ..connection import connected, local_options, url_options
from ..exits import reported


@click.command()
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The only folder that agents may read and write.  [default: here]",
)
@url_options
@local_options
def command(folder: Path, url: str | None, key: str | None, weights: str | None, device: str | None) -> None:
    """Serve agents on stdin and stdout: generate, extract, status, list, cancel, estimate, and files."""
    try:
        from ..agent_tools import agent_server
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed; agents need: pip install 'trellis2-modal[mcp]'"
        ) from error
    with reported(), connected(url, key, weights, device) as client:
        agent_server(client, folder).run()
