"""`trellis2-modal keys`: who may use a service."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from ...protocol.replies import DEFAULT_SCOPES, SCOPES

if TYPE_CHECKING:
    from ...service.auth import ApiKey, KeyAdmin

    OpenAdmin: TypeAlias = Callable[[], KeyAdmin]

DAY = 24 * 3600
SCOPE_HELP = (
    "May be given several times: webhook lets jobs name a callback_url; dry-run, in place of generate and "
    "extract, runs and counts nothing.  [default: generate and extract]"
)


def _admin(data_dir: Path | None, modal: bool) -> KeyAdmin:
    """The key list to work on: this machine's, or that of a deployment on Modal."""
    if modal:
        try:
            modal_keys = importlib.import_module("trellis2_modal.service.deploy.modal_keys")
        except ImportError as error:
            raise click.ClickException(
                f"{error.name} is missing; keys on Modal need: pip install 'trellis2-modal[deploy]'"
            ) from error
        admin: KeyAdmin = modal_keys.modal_admin()
        return admin
    from ...service.auth import local_admin
    from ...service.config import Settings

    return local_admin(data_dir or Settings.from_env().data_dir)


class KeysGroup(click.Group):
    """A key list that cannot be read or written is said in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"the key list cannot be used: {error}") from error


@click.group(cls=KeysGroup)
@click.option("--modal", is_flag=True, help="The keys of the deployment on Modal.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Data folder of a local server.",
)
@click.pass_context
def command(ctx: click.Context, modal: bool, data_dir: Path | None) -> None:
    """Create, list, revoke and rotate API keys. A secret is shown once and never stored."""
    ctx.obj = lambda: _admin(data_dir, modal)


@command.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help=SCOPE_HELP)
@click.option("--days", type=click.FloatRange(min=0), default=None, help="Expires after so many days.")
@click.option("--requests-per-minute", type=click.IntRange(0), default=60, show_default=True)
@click.option("--gpu-seconds-per-day", type=click.FloatRange(0), default=7200.0, show_default=True)
@click.pass_obj
def create(
    admin: OpenAdmin,
    name: str,
    scopes: tuple[str, ...],
    days: float | None,
    requests_per_minute: int,
    gpu_seconds_per_day: float,
) -> None:
    """Make a key for NAME and print its secret."""
    expires = None if days is None else time.time() + days * DAY
    opened = admin()
    opened.keys()  # a list that cannot be read is no mistake in the arguments
    try:
        chosen = scopes or DEFAULT_SCOPES
        key, secret = opened.create(name, chosen, expires, requests_per_minute, gpu_seconds_per_day)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{key.id}  {key.name}  {' '.join(key.scopes)}", err=True)
    click.echo("Keep the secret; it is not shown again:", err=True)
    click.echo(secret)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def list_keys(admin: OpenAdmin, as_json: bool) -> None:
    """Show every key, without secrets."""
    keys = admin().keys()
    if as_json:
        rows = [
            {
                "id": key.id,
                "name": key.name,
                "scopes": list(key.scopes),
                "state": _state(key),
                "created": key.created,
                "expires": key.expires,
                "requests_per_minute": key.requests_per_minute,
                "gpu_seconds_per_day": key.gpu_seconds_per_day,
            }
            for key in keys
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    if not keys:
        click.echo("There are no keys; make one: trellis2-modal keys create NAME", err=True)
    for key in keys:
        made = datetime.fromtimestamp(key.created, UTC).date()
        click.echo(
            f"{key.id}  {_state(key):8}  {made}  {'+'.join(key.scopes):16}  "
            f"{key.requests_per_minute}/min  {key.gpu_seconds_per_day:g} s/day  {key.name}"
        )


@command.command()
@click.argument("key_id")
@click.pass_obj
def revoke(admin: OpenAdmin, key_id: str) -> None:
    """Stop a key from working, within a second locally and within a minute on Modal."""
    try:
        key = admin().revoke(key_id)
    except KeyError as error:
        raise click.ClickException(f"there is no key {key_id}; see: trellis2-modal keys list") from error
    click.echo(f"{key.id} ({key.name}) is revoked")


@command.command()
@click.argument("key_id")
@click.option("--overlap-hours", type=click.FloatRange(0), default=24.0, show_default=True)
@click.pass_obj
def rotate(admin: OpenAdmin, key_id: str, overlap_hours: float) -> None:
    """Make a key like KEY_ID and print its secret; the old one works on for the overlap."""
    try:
        key, secret = admin().rotate(key_id, overlap_hours * 3600)
    except KeyError as error:
        raise click.ClickException(f"there is no key {key_id}; see: trellis2-modal keys list") from error
    click.echo(f"{key.id} replaces {key_id}; keep the secret, it is not shown again:", err=True)
    click.echo(secret)


def _state(key: ApiKey) -> str:
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and key.expires <= time.time():
        return "expired"
    return "active"
