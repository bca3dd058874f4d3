"""`trellis2-modal demo`: an example picture to an asset through the local HTTP service, timed by stage."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import click

from ...client.api import Client
from ...client.inputs.pictures import EXAMPLES, example_pictures
from ...client.local import LocalServer
from ...client.results import ExtractResult, GenerateResult, first_still
from ...client.stages import duration
from ...durable import write_atomically
from ..asset import check_folder, print_asset, print_seconds, stage_seconds
from ..bars import Bars
from ..connection import TellWaiting, local_options
from ..exits import CANCELLED, reported


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to write into.",
)
@click.option("--budget", default="web", show_default=True, help="Preset of the extraction.")
@local_options
def command(image: Path | None, output: Path, budget: str, weights: str | None, device: str | None) -> None:
    """Make an asset from an example picture (or IMAGE) on this machine, the way the app does."""
    chosen = image or example_picture()
    with reported(then=CANCELLED):
        check_folder(output)
        output.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        click.echo(f"Picture: {chosen}")
        with LocalServer(weights=weights, device=device) as server:
            click.echo(f"Local service: {server.url}, started in {time.perf_counter() - began:.1f} s")
            with Client(server.url, server.key, on_wait=TellWaiting()) as client:
                run(client, chosen, output, budget, began)


def example_picture() -> Path:
    """The first example picture of the repository. Raises `click.UsageError`."""
    found = example_pictures()
    if not found:
        raise click.UsageError(
            f"there are no pictures in {EXAMPLES}; give one: trellis2-modal demo photo.png"
        )
    return found[0]


def run(client: Client, picture: Path, output: Path, budget: str, began: float) -> None:
    """Generate, extract and write everything into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    files = {"input": write_atomically(output / "input.png", as_png(picture))}
    model = client.health().model
    bars, export_bars = Bars(), Bars()
    export: dict[str, Any] = {"simplify": budget}
    asset = client.generate(picture, on_event=bars, preview="frames")
    if asset.video:
        files["video"] = write_atomically(output / "preview.mp4", asset.video)
    still = first_still(asset, "shaded")
    if still:
        files["preview"] = write_atomically(output / "preview.png", still)
    result = client.extract_glb(asset, on_event=export_bars, **export)
    files["asset"] = result.save(output / "asset.glb")
    seconds = {
        **stage_seconds(asset.stats, bars.seconds),
        **stage_seconds(result.stats, export_bars.seconds),
    }
    report = report_of(asset, result, seconds, time.perf_counter() - began)
    files["report"] = write_atomically(output / "report.json", json.dumps(report, indent=1).encode())
    print_asset(files, result, {"model": model or client.health().model, "seed": asset.seed})
    click.echo("Seconds by stage:")
    print_seconds(seconds)
    click.echo(f"Everything, from the start of the service: {duration(report['wall_seconds'])}")


def report_of(
    asset: GenerateResult, result: ExtractResult, seconds: dict[str, float], wall: float
) -> dict[str, Any]:
    """What demo/report.json holds."""
    return {
        "seed": asset.seed,
        "resolution": asset.resolution,
        "settings": asset.settings,
        "export": result.settings,
        "stats": {k: v for k, v in asset.stats.items() if k != "seconds"},
        "report": result.report,
        "seconds": seconds,
        "wall_seconds": round(wall, 2),
    }


def as_png(picture: Path) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(picture) as image:
        image.save(buffer, "PNG")
    return buffer.getvalue()
