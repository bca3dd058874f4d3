"""`trellis2-modal estimate`: what a generation and its file would take and cost."""

from __future__ import annotations

from typing import Any

import click

from ...client.report import describe_estimate
from ...protocol.requests import ExtractSettings, GenerateSettings
from ..asset import print_document
from ..connection import json_option, remote, url_options
from ..exits import reported
from ..flags import given, settings_options


@click.command()
@click.option("--preview", is_flag=True, help="With a turntable video.")
@settings_options(GenerateSettings, leave_out=("preview",))
@settings_options(ExtractSettings)
@url_options
@json_option
def command(preview: bool, url: str | None, key: str | None, as_json: bool, **values: Any) -> None:
    """What a generation and its file would take and cost, by the last jobs like them. Makes no job."""
    values = given(values)
    generate, extract = (
        {name: value for name, value in values.items() if name in model.model_fields}
        for model in (GenerateSettings, ExtractSettings)
    )
    generate["preview"] = "video" if preview else "none"
    with reported(as_json), remote(url, key) as client:
        found = [client.estimate("generate", **generate), client.estimate("extract", **extract)]
    if as_json:
        print_document({estimate.kind: estimate.model_dump(mode="json") for estimate in found})
        return
    for estimate in found:
        click.echo(f"{estimate.kind:9} {describe_estimate(estimate)}")
