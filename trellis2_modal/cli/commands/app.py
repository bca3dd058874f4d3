"""`trellis2-modal app`: the desktop web app."""

from __future__ import annotations

import click

from ..connection import local_options, proxy_token_of, url_options
from ..exits import reported


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7860, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option(
    "--share-on-network",
    is_flag=True,
    help="Let a phone or another computer of your network in, with a password.",
)
@click.option("--browser/--no-browser", default=True, help="Open it in the browser.")
@url_options
@local_options
@click.pass_context
def command(
    context: click.Context,
    host: str,
    port: int,
    share_on_network: bool,
    browser: bool,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
) -> None:
    """Open the desktop web app; with no service set it starts one on this machine."""
    if share_on_network:
        if context.get_parameter_source("host") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--share-on-network chooses the address itself; leave --host out")
        host = "0.0.0.0"
    with reported():
        from ...client.app.gate import PASSWORD_VARIABLE
        from ...client.app.launch import Shared, run

        def listening(address: str) -> None:
            click.echo(f"The app is at {address}")

        def shared(found: Shared) -> None:
            for address in found.addresses or ["this machine's address"]:
                click.echo(f"On your phone open {address}")
            password = found.password or f"that of {PASSWORD_VARIABLE}"
            click.echo(f"The password is {password}, with any user name")
            click.echo(
                "The connection is not encrypted: share it only on a network that you trust.", err=True
            )

        proxy_token = proxy_token_of(context)
        run(host, port, browser, url, key, weights, device, listening, proxy_token, shared)
