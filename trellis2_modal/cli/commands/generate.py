"""`trellis2-modal generate`: a picture to a file and a preview, on a service or on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...client.api import Client
from ...client.estimates import forecast
from ...client.history import HISTORY, History
from ...client.http.calls import read_state
from ...client.inputs.cameras import read_cameras
from ...client.inputs.pictures import crop_picture, read_picture
from ...client.report import describe_estimate
from ...client.results import ExtractResult, GenerateResult
from ...client.settings import home
from ...client.stats import Costs
from ...protocol.requests import ExtractSettings, GenerateSettings
from ...protocol.views import views_of_text
from ..asset import STDOUT, check_writable, format_of, print_asset, print_document, stage_seconds, write
from ..bars import Bars
from ..connection import connected, json_option, local_options, url_options
from ..exits import CANCELLED, reported
from ..flags import given, settings_options

FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@click.command()
@click.argument(
    "images", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True
)
@click.option(
    "--views", default=None, help="The object's own side that each of IMAGES shows: front,left,back,right."
)
@click.option(
    "--cameras",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="In place of --views: transforms.json, or a JSON list of camera-to-world matrices.",
)
@click.option(
    "--crop",
    type=(float, float, float, float),
    default=None,
    metavar="LEFT TOP RIGHT BOTTOM",
    help="Use this part of a single picture only, in percent: one of several objects.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=None,
    help="File to write, - for stdout.  [default: IMAGE.glb]",
)
@click.option("--preview", "video", type=FILE, default=None, help="Also write a turntable video (.mp4).")
@click.option("--stills", type=FILE, default=None, help="Also write stills in every render mode (.webp).")
@click.option(
    "--shape",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="State with latents whose shape stays: it is textured anew, or refined by a cascade.",
)
@click.option("--state", type=FILE, default=None, help="Keep the state, for `extract` (.state.lz4).")
@click.option(
    "--history/--no-history",
    "keep",
    default=True,
    help="Keep the asset and its state in the app's history too.  [default: on]",
)
@settings_options(GenerateSettings, leave_out=("preview",))
@settings_options(ExtractSettings)
@url_options
@local_options
@json_option
def command(
    images: tuple[Path, ...],
    views: str | None,
    cameras: Path | None,
    crop: tuple[float, float, float, float] | None,
    output: Path | None,
    video: Path | None,
    stills: Path | None,
    shape: Path | None,
    state: Path | None,
    keep: bool,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Make a textured 3D asset from a picture, or from up to 8 views of one object.

    Of several variants (--num-samples) each file gets its number: chair-1.glb, chair-2.glb; what they will
    take and cost is printed first.
    With no service set (--url, TRELLIS2_URL or the app's settings) one is started on this machine for the
    length of the command.
    """
    output = output or images[0].with_suffix(".glb")
    given_values = given(values)
    settings = {k: v for k, v in given_values.items() if k in GenerateSettings.model_fields}
    export = {k: v for k, v in given_values.items() if k in ExtractSettings.model_fields}
    export["format"] = format_of(output, export.get("format"))
    settings["preview"] = "frames" if stills else "video" if video else "none"
    with reported(as_json, CANCELLED):
        if cameras is not None:
            settings = read_cameras(cameras, images) | settings
        elif views is not None:
            settings["views"] = views_of_text(views)
        if crop is not None and len(images) > 1:
            raise click.UsageError("--crop is for one picture")
        check_writable(output, video, stills, state)
        pictures = [read_picture(crop_picture(path, crop) if crop else path) for path in images]
        kept = None if shape is None else read_state(shape)
        with connected(url, key, weights, device) as client:
            files = Files(output, video, stills, state)
            joins = partial(_join_history, images[0].name, pictures) if keep else None
            make(client, pictures, files, settings, export, as_json, kept, joins)


def _join_history(title: str, pictures: list[bytes], asset: GenerateResult, result: ExtractResult) -> None:
    """Keep it where the app shows it. What was asked for is written already: a full disk is a warning."""
    try:
        first, *others = pictures
        History(home() / HISTORY).join(first, title, asset, [(result, result.format)], others)
    except OSError as error:
        click.echo(f"Warning: it could not join the history ({error}).", err=True)


@dataclass(frozen=True)
class Files:
    """Where everything of an asset is written; None for what nobody asked for."""

    asset: Path
    video: Path | None = None
    stills: Path | None = None
    state: Path | None = None

    def numbered(self, number: int) -> Files:
        """Of one of several variants: name-1.glb, name-1.state.lz4."""
        return Files(*(path and _numbered(path, number) for path in astuple(self)))


def _numbered(path: Path, number: int) -> Path:
    if path == STDOUT:
        raise click.UsageError("several variants are several files: name them with -o")
    ending = ".state.lz4" if path.name.endswith(".state.lz4") else path.suffix
    return path.with_name(f"{path.name.removesuffix(ending)}-{number}{ending}")


def make(
    client: Client,
    pictures: list[bytes],
    files: Files,
    settings: dict[str, Any],
    export: dict[str, Any],
    as_json: bool,
    shape: bytes | None = None,
    joins: Callable[[GenerateResult, ExtractResult], None] | None = None,
) -> list[dict[str, Any]]:
    """Generate, extract, write the files, print; returns the report of each variant that --json prints."""
    count = int(settings.get("num_samples", 1))
    places = [files.numbered(number) for number in range(1, count + 1)] if count > 1 else [files]
    check_writable(*(path for place in places for path in astuple(place)))
    if count > 1 and not as_json:
        click.echo(f"{count} variants: {describe_estimate(forecast(client, 'generate', settings))}", err=True)
    bars = Bars(quiet=as_json, forecast=lambda: forecast(client, "generate", settings).stages)
    made = client.generate(pictures, shape=shape, on_event=bars, **settings)
    assets = list(zip(made.variants or (made,), places, strict=False))
    # written before the extraction: what was paid for is kept even when that fails
    kept = [_write_generation(asset, place) for asset, place in assets]
    reports = []
    for (asset, place), written in zip(assets, kept, strict=True):
        report, result = _extract(client, asset, place, written, export, bars, as_json)
        reports.append(report)
        if joins is not None:
            joins(asset, result)
    if as_json:
        print_document(reports[0] if len(reports) == 1 else {"variants": reports}, err=files.asset == STDOUT)
    for notice in [] if as_json else made.warnings:
        click.echo(f"Warning: {notice.message}.", err=True)
    return reports


def _extract(
    client: Client,
    asset: GenerateResult,
    place: Files,
    written: dict[str, Path],
    export: dict[str, Any],
    bars: Bars,
    as_json: bool,
) -> tuple[dict[str, Any], ExtractResult]:
    """The file of one asset, written, and its report."""
    export_bars = Bars(quiet=as_json, forecast=lambda: forecast(client, "extract", export).stages)
    result = client.extract_glb(asset, on_event=export_bars, **export)
    files = {"asset": write(place.asset, result.data)} | written
    report = {
        "files": {name: str(path) for name, path in files.items()},
        "seed": asset.seed,
        "resolution": asset.resolution,
        "pipeline_type": asset.settings.get("pipeline_type"),
        "job": asset.job,
        "warnings": [notice.model_dump() for notice in asset.warnings],
        "report": result.report,
        "stats": {k: v for k, v in asset.stats.items() if k != "seconds"},
        "costs": (costs := Costs.of_all(asset.stats, result.stats)).model_dump(),
        "seconds": {
            "generate": stage_seconds(asset.stats, bars.seconds),
            "extract": stage_seconds(result.stats, export_bars.seconds),
        },
    }
    if not as_json:
        facts = {"seed": asset.seed, "pipeline": f"{asset.settings.get('pipeline_type')}"}
        print_asset(files, result, facts, costs)
    return report, result


def _write_generation(asset: GenerateResult, place: Files) -> dict[str, Path]:
    wanted = {
        "video": (place.video, asset.video),
        "stills": (place.stills, asset.preview),
        "state": (place.state, asset.state),
    }
    return {name: write(path, data) for name, (path, data) in wanted.items() if path and data}
