"""`trellis2-modal texture`: a mesh and a picture to the same mesh with new textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...client.http.calls import read_mesh
from ...client.inputs.pictures import read_picture
from ...client.stats import Costs
from ...protocol.requests import TextureSettings
from ..asset import STDOUT, check_writable, print_asset, print_document, stage_seconds, write
from ..bars import Bars
from ..connection import connected, json_option, local_options, url_options
from ..exits import CANCELLED, reported
from ..flags import given, settings_options

FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
GIVEN = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("mesh", type=GIVEN)
@click.argument("images", type=GIVEN, nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=None,
    help="GLB to write, - for stdout.  [default: MESH-textured.glb]",
)
@click.option("--preview", "video", type=FILE, default=None, help="Also write a turntable video (.mp4).")
@click.option("--stills", type=FILE, default=None, help="Also write stills in every render mode (.webp).")
@settings_options(TextureSettings, leave_out=("preview",))
@url_options
@local_options
@json_option
def command(
    mesh: Path,
    images: tuple[Path, ...],
    output: Path | None,
    video: Path | None,
    stills: Path | None,
    url: str | None,
    key: str | None,
    weights: str | None,
    device: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Give MESH (GLB, OBJ, PLY or STL) the textures that a picture, or up to 8 views, show.

    Its positions and UVs stay as they are; it gets UVs where it has none, or with --new-uvs. A GLB keeps its
    nodes, skins and animations.
    """
    output = output or mesh.with_name(f"{mesh.stem}-textured.glb")
    if output != STDOUT and output.suffix.lower() != ".glb":
        raise click.UsageError(f"{output.name}: a textured mesh is a GLB; end it with .glb")
    settings = given(values) | {"preview": "frames" if stills else "video" if video else "none"}
    with reported(as_json, CANCELLED):
        check_writable(output, video, stills)
        data, pictures = read_mesh(mesh), [read_picture(path) for path in images]
        with connected(url, key, weights, device) as client:
            bars = Bars(quiet=as_json)
            result = client.texture(data, pictures, on_event=bars, **settings)
        files = {"asset": write(output, result.data)}
        others = {"video": (video, result.video), "stills": (stills, result.preview)}
        files |= {name: write(path, data) for name, (path, data) in others.items() if path and data}
    costs = Costs.of_all(result.stats)
    if as_json:
        report = {
            "files": {name: str(path) for name, path in files.items()},
            "seed": result.seed,
            "job": result.job,
            "warnings": [notice.model_dump() for notice in result.warnings],
            "report": result.report,
            "costs": costs.model_dump(),
            "seconds": {"texture": stage_seconds(result.stats, bars.seconds)},
        }
        print_document(report, err=STDOUT in files.values())
        return
    print_asset(files, result, {"seed": result.seed}, costs)
    for notice in result.warnings:
        click.echo(f"Warning: {notice.message}.", err=True)
