"""`trellis2-modal serve`: the HTTP service and its worker on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from ..connection import trust_option
from ..device import device_option


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8188, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--weights", default=None, help="Folder or hub repo.  [default: the bundled weights]")
@device_option("auto")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Keys, jobs and results.  [default: the user data folder]",
)
@trust_option
@click.option("--json-logs", is_flag=True, help="One JSON object a line on stderr.")
def command(
    host: str, port: int, weights: str | None, device: str, data_dir: Path | None, json_logs: bool
) -> None:
    """Run the service on this machine, with the model in a process of its own."""
    try:
        from ...service.http import server
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed; serving needs: pip install 'trellis2-modal[local]'"
        ) from error
    from ...service.config import Settings, default_weights

    try:
        settings = Settings.from_env() if data_dir is None else Settings.from_env(data_dir=data_dir)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    server.configure_logging(json_logs)
    try:
        key_path = server.ensure_first_key(settings.data_dir)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the data folder {settings.data_dir} cannot be used: {error}") from error
    if key_path is None:
        click.echo("There are keys already; make another with: trellis2-modal keys create NAME")
    else:
        click.echo(f"Your API key is in {key_path}")
    chosen = weights or default_weights()
    click.echo(f"Weights: {chosen}")
    if host not in ("127.0.0.1", "::1", "localhost"):
        click.echo("Listening beyond this machine without TLS: put a proxy with TLS in front.", err=True)

    def listening(url: str) -> None:
        click.echo(f"The API is described at {url}/docs")
        click.echo(f"Listening on {url}")

    try:
        raise SystemExit(server.run(settings, chosen, device, host, port, listening))
    except TimeoutError as error:
        raise click.ClickException(f"{error}; stop it, or choose another --data-dir") from error
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {reason}; choose another --port"
        ) from error
