"""`trellis2-modal check`: how sound 3D files are, ours or another's."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..asset import print_document
from ..connection import json_option
from ..exits import Exit


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@json_option
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Judge FILES (GLB, OBJ, PLY, STL, 3MF): closed, manifold, outward? With size, volume, textures.

    Needs no service and no weights. The exit code is 0 when every file is sound.
    """
    try:
        from o_voxel.check import check_file
        from o_voxel.errors import OVoxelError
    except ImportError as error:
        raise click.ClickException(
            f"{error.name} is not installed; checking needs: pip install 'trellis2-modal[local]'"
        ) from error
    found, unreadable = [], False
    for file in files:
        try:
            found.append(check_file(file))
        except (OVoxelError, OSError) as error:
            unreadable = True
            click.secho(f"{file.name}: {error}", err=True, fg="red")
    if as_json:
        print_document({"files": [result.to_dict() for result in found]})
    else:
        for result in found:
            click.echo("\n".join(result.lines()))
    if unreadable:
        sys.exit(Exit.INPUT)
    if not all(result.sound for result in found):
        sys.exit(Exit.UNSOUND)
