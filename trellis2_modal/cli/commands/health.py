"""`trellis2-modal health`: whether the service runs and what it offers."""

from __future__ import annotations

import sys

import click

from ..asset import print_document
from ..connection import json_option, remote, url_options
from ..exits import Exit, reported


@click.command()
@url_options
@json_option
def command(url: str | None, key: str | None, as_json: bool) -> None:
    """Whether the service runs and what it offers. Needs no key."""
    with reported(as_json), remote(url, key) as client:
        place, health = client.url, client.health()
    if as_json:
        print_document(health.model_dump(mode="json"))
    else:
        click.echo(f"{place}: {health.status}, version {health.version}")
        click.echo(
            f"Model {health.model or 'not loaded yet'}{' on ' + health.device if health.device else ''}"
        )
        if health.pipeline_types:
            click.echo(
                f"Pipeline types {', '.join(health.pipeline_types)}; default {health.default_pipeline_type}"
            )
        click.echo(f"{health.running} running, {health.queued} queued of {health.queue_limit}")
    if health.status in ("degraded", "stopping"):
        sys.exit(Exit.BUSY)
