"""`trellis2-modal extract`: a kept state to a file with other settings, without generating again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...client.estimates import forecast
from ...client.http.calls import read_state
from ...client.stats import Costs
from ...protocol.requests import ExtractSettings
from ..asset import STDOUT, check_writable, format_of, print_asset, print_document, stage_seconds, write
from ..bars import Bars
from ..connection import connected, json_option, local_options, url_options
from ..exits import CANCELLED, reported
from ..flags import given, settings_options


@click.command()
@click.argument("state", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    help="File to write, - for standard output.",
)
@settings_options(ExtractSettings)
@url_options
@local_options
@json_option
def command(
    state: Path,
    output: Path,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Make a file from STATE (see generate --state, or the app's history)."""
    export = given(values)
    export["format"] = format_of(output, export.get("format"))
    if output != STDOUT:
        export["name"] = output.stem[:80]
    with reported(as_json, CANCELLED):
        check_writable(output)
        kept = read_state(state)
        with connected(url, key, weights, device) as client:
            bars = Bars(quiet=as_json, forecast=lambda: forecast(client, "extract", export).stages)
            result = client.extract_glb(kept, on_event=bars, **export)
            path = write(output, result.data)
    costs = Costs.of_all(result.stats)
    if as_json:
        seconds = stage_seconds(result.stats, bars.seconds)
        report = {"files": {"asset": str(path)}, "job": result.job, "report": result.report}
        report |= {"seconds": {"extract": seconds}, "costs": costs.model_dump()}
        print_document(report, err=path == STDOUT)
    else:
        print_asset({"asset": path}, result, {}, costs)
