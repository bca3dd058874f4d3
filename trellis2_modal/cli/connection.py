"""Which service a command talks to: the options --url and --key, or the server on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..client.api import Client
from ..client.errors import NoServiceError
from ..client.local import LocalServer
from ..client.options import ProxyToken, Waiting
from ..client.settings import (
    KEY_VARIABLE,
    MODAL_KEY_VARIABLE,
    MODAL_SECRET_VARIABLE,
    URL_VARIABLE,
    Target,
    choose_target,
)
from .device import device_option

F = TypeVar("F", bound=Callable[..., Any])


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


def tell_waiting(waiting: Waiting) -> None:
    """Why nothing happens for a while, on stderr; the everyday result address is not worth a line."""
    if waiting.reason != "working" or waiting.attempt == 1:
        seconds = f" ({waiting.seconds:.0f} s)" if waiting.seconds >= 1 else ""
        click.echo(f"{waiting.message}{seconds} ...", err=True)


def client_of(target: Target) -> Client:
    """A client of a service that is not this machine's own."""
    return Client(target.url, target.key or None, proxy_token=target.proxy_token, on_wait=tell_waiting)


@contextmanager
def connected(
    url: str | None,
    key: str | None,
    weights: str | None = None,
    device: str | None = None,
) -> Iterator[Client]:
    """A client of the chosen service; with none chosen, of a server that is started here for this command."""
    target = choose_target(url, key, proxy_token=proxy_token_of(click.get_current_context()))
    if target.url:
        if weights or device:
            raise click.UsageError("--weights and --device are for this machine; leave out --url")
        with client_of(target) as client:
            yield client
        return
    click.echo("No service is set: starting one on this machine ...", err=True)
    with LocalServer(weights=weights, device=device) as server:
        click.echo(f"It runs at {server.url}; it stops with this command.", err=True)
        with Client(server.url, server.key, on_wait=tell_waiting) as client:
            yield client


@contextmanager
def remote(url: str | None, key: str | None) -> Iterator[Client]:
    """A client of a service that already runs. Raises `NoServiceError` when none is set."""
    target = choose_target(url, key, proxy_token=proxy_token_of(click.get_current_context()))
    if not target.url:
        raise NoServiceError(
            f"no service is set; give --url and --key, or set {URL_VARIABLE} and {KEY_VARIABLE}"
        )
    with client_of(target) as client:
        yield client
