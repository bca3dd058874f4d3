"""`trellis2-modal usage`: your limits and what is left of them."""

from __future__ import annotations

import click

from ...client.report import money
from ...client.stages import duration
from ..asset import print_document
from ..connection import json_option, remote, url_options
from ..exits import reported


@click.command()
@url_options
@json_option
def command(url: str | None, key: str | None, as_json: bool) -> None:
    """Your limits and what is left of them."""
    with reported(as_json), remote(url, key) as client:
        usage = client.usage()
    if as_json:
        print_document(usage.model_dump(mode="json"))
        return
    click.echo(f"{usage.name} ({usage.key}), may {' and '.join(usage.scopes)}")
    click.echo(
        f"GPU time left today: {duration(usage.gpu_seconds_left)} of {duration(usage.gpu_seconds_per_day)}"
    )
    if usage.price_used is not None:
        rate = f"{usage.gpu_price_per_hour:g} {usage.currency} an hour"
        click.echo(f"Estimated cost of the last 24 hours: {money(usage.price_used, usage.currency)} ({rate})")
    click.echo(f"Requests left this minute: {usage.requests_left} of {usage.requests_per_minute}")
    click.echo(f"Unfinished jobs: {usage.active_jobs} of {usage.max_active_jobs}")
    if usage.expires:
        click.echo(f"The key expires on {usage.expires:%Y-%m-%d}")
