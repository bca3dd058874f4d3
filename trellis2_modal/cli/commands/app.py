"""`trellis2-modal app`: the desktop web app."""

from __future__ import annotations

import click

from ..connection import local_options, proxy_token_of, url_options
from ..exits import reported


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7860, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--browser/--no-browser", default=True, help="Open it in the browser.")
@url_options
@local_options
@click.pass_context
def command(
    context: click.Context,
    host: str,
    port: int,
    browser: bool,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
) -> None:
    """Open the desktop web app; with no service set it starts one on this machine."""
    with reported():
        from ...client.app.launch import run

        def listening(address: str) -> None:
            click.echo(f"The app is at {address}")

        run(host, port, browser, url, key, weights, device, listening, proxy_token_of(context))
