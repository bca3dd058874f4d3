"""`trellis2-modal health` and `usage`: how the service is, and what is left of your limits."""

from __future__ import annotations

import sys

import click

from ...client.report import money
from ...client.stages import duration
from ..asset import print_document
from ..connection import json_option, remote, url_options
from ..exits import Exit, reported


@click.command("health")
@url_options
@json_option
def health(url: str | None, key: str | None, as_json: bool) -> None:
    """Whether the service runs and what it offers. Needs no key."""
    with reported(as_json), remote(url, key) as client:
        place, found = client.url, client.health()
    if as_json:
        print_document(found.model_dump(mode="json"))
    else:
        click.echo(f"{place}: {found.status}, version {found.version}")
        click.echo(f"Model {found.model or 'not loaded yet'}{' on ' + found.device if found.device else ''}")
        if found.pipeline_types:
            click.echo(
                f"Pipeline types {', '.join(found.pipeline_types)}; default {found.default_pipeline_type}"
            )
        if found.texture_types:
            click.echo(f"Meshes are textured at {', '.join(found.texture_types)}")
        named = {"a picture's address (image_url)": found.image_url, "words (prompt)": found.prompt}
        if taken := [what for what, on in named.items() if on]:
            click.echo(f"In place of a picture it takes {' and '.join(taken)}")
        click.echo(f"{found.running} running, {found.queued} queued of {found.queue_limit}")
    if found.status in ("degraded", "stopping"):
        sys.exit(Exit.BUSY)


@click.command("usage")
@url_options
@json_option
def usage(url: str | None, key: str | None, as_json: bool) -> None:
    """Your limits and what is left of them."""
    with reported(as_json), remote(url, key) as client:
        found = client.usage()
    if as_json:
        print_document(found.model_dump(mode="json"))
        return
    click.echo(f"{found.name} ({found.key}), may {' and '.join(found.scopes)}")
    click.echo(
        f"GPU time left today: {duration(found.gpu_seconds_left)} of {duration(found.gpu_seconds_per_day)}"
    )
    if found.price_used is not None:
        rate = f"{found.gpu_price_per_hour:g} {found.currency} an hour"
        click.echo(f"Estimated cost of the last 24 hours: {money(found.price_used, found.currency)} ({rate})")
    click.echo(f"Requests left this minute: {found.requests_left} of {found.requests_per_minute}")
    click.echo(f"Unfinished jobs: {found.active_jobs} of {found.max_active_jobs}")
    if found.expires:
        click.echo(f"The key expires on {found.expires:%Y-%m-%d}")
