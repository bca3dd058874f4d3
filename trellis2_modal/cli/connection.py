"""Which service a command talks to: the options --url and --key, or the server on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..client.api import Client
from ..client.errors import NoServiceError
from ..client.local import LocalServer, find_server
from ..client.options import ProxyToken, Waiting
from ..client.settings import (
    APP_SERVER,
    KEY_VARIABLE,
    MODAL_KEY_VARIABLE,
    MODAL_SECRET_VARIABLE,
    URL_VARIABLE,
    Target,
    choose_target,
    home,
)
from ..service.config import ENV_PREFIX, default_data_dir
from .device import device_option

F = TypeVar("F", bound=Callable[..., Any])
RUNS_HERE = "the server that runs here"


def _note_token(context: click.Context, option: click.Parameter, given: str | None) -> None:
    context.meta[f"{__name__}.{option.name}"] = given or ""


def proxy_token_of(context: click.Context) -> ProxyToken:
    """What --modal-key and --modal-secret were given."""
    parts = (context.meta.get(f"{__name__}.{name}", "") for name in ("modal_key", "modal_secret"))
    return ProxyToken(*parts)


def url_options(command: F) -> F:
    """--url, --key, and the two parts of a proxy token (see `proxy_token_of`)."""
    for name, variable in (("--modal-secret", MODAL_SECRET_VARIABLE), ("--modal-key", MODAL_KEY_VARIABLE)):
        command = click.option(
            name,
            default=None,
            expose_value=False,
            callback=_note_token,
            help=f"Proxy token of a private deployment.  [default: {variable}, or settings]",
        )(command)
    command = click.option("--key", default=None, help=f"API key.  [default: {KEY_VARIABLE}, or settings]")(
        command
    )
    return click.option(
        "--url", default=None, help=f"Service to use.  [default: {URL_VARIABLE}, settings, or this machine]"
    )(command)


def _trust(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        os.environ["TRELLIS2_TRUST_CODE"] = "1"  # for the process that loads the model


def trust_option(command: F) -> F:
    """--trust-code, for those that load a model."""
    return click.option(
        "--trust-code",
        is_flag=True,
        expose_value=False,
        callback=_trust,
        help="Run Python code that weights bring along, wherever they come from.",
    )(command)


def local_options(command: F) -> F:
    """--weights, --device and --trust-code, for the server that is started on this machine."""
    command = device_option(None)(trust_option(command))
    return click.option(
        "--weights", default=None, help="Folder or hub repo, when this machine runs the model."
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="For scripts: JSON on stdout.")(command)


class TellWaiting:
    """Why nothing happens for a while, on stderr, each reason once; the everyday result address is not worth
    a line."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, waiting: Waiting) -> None:
        if waiting.message != self._last and (waiting.reason != "working" or waiting.attempt == 1):
            self._last = waiting.message
            click.echo(f"{waiting.message} ...", err=True)


def chosen_target(url: str | None, key: str | None, proxy_token: ProxyToken | None = None) -> Target:
    """What options, environment and settings choose, else a server that runs here: the one of `serve`, then
    that of the open app. With an empty `url` there is none.
    """
    target = choose_target(url, key, proxy_token=proxy_token)
    if target.url:
        return target
    served = Path(os.environ.get(f"{ENV_PREFIX}DATA_DIR") or default_data_dir())
    found = find_server(served, home() / APP_SERVER)
    if found is None:
        return target
    return Target(found.url, key or found.read_key() or os.environ.get(KEY_VARIABLE, ""), RUNS_HERE)


def _chosen(url: str | None, key: str | None) -> Target:
    return chosen_target(url, key, proxy_token_of(click.get_current_context()))


def _client_of(target: Target) -> Client:
    """A client of a service that runs already."""
    if target.origin == RUNS_HERE:
        click.echo(f"Using the server that runs on this machine, {target.url}", err=True)
    return Client(target.url, target.key or None, proxy_token=target.proxy_token, on_wait=TellWaiting())


@contextmanager
def connected(
    url: str | None,
    key: str | None,
    weights: str | None = None,
    device: str | None = None,
    starting: Callable[[], None] = lambda: None,
) -> Iterator[Client]:
    """A client of the chosen service or of a server that runs here; else, or with weights or a device of its
    own, of one that is started here for this command, which `starting` hears of."""
    own = bool(weights or device)
    target = choose_target(url, key) if own else _chosen(url, key)
    if target.url and own:
        raise click.UsageError("--weights and --device are for this machine; leave out --url")
    if target.url:
        with _client_of(target) as client:
            yield client
        return
    click.echo("No service is set: starting one on this machine ...", err=True)
    starting()
    with LocalServer(weights=weights, device=device) as server:
        click.echo(f"It runs at {server.url}; it stops with this command.", err=True)
        with Client(server.url, server.key, on_wait=TellWaiting()) as client:
            yield client


@contextmanager
def remote(url: str | None, key: str | None) -> Iterator[Client]:
    """A client of a service that already runs. Raises `NoServiceError` when there is none."""
    target = _chosen(url, key)
    if not target.url:
        raise NoServiceError(
            f"no service is set, and none runs on this machine; give --url and --key, or set {URL_VARIABLE} "
            f"and {KEY_VARIABLE}"
        )
    with _client_of(target) as client:
        yield client
