"""The contact sheet: every example picture, and what the weights make of it, from four sides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trellis2.errors import EmptyStructureError, InvalidArgumentError
from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.utils.render_utils import FRONT_OFFSET, render_snapshot

log = logging.getLogger(__name__)

SIDES = 4
_GROUND = (236, 236, 236)


def write_sheet(
    weights: Path,
    pictures: Sequence[Path],
    out: Path,
    size: int = 144,
    columns: int = 2,
    seed: int = 42,
    device: str = "cpu",
) -> None:
    """Run the pipeline on pictures and write one picture of `columns` examples a row: input, then four sides,
    the front first.

    `size` is a tile's side in pixels. Raises InvalidArgumentError without pictures.
    """
    if not pictures:
        raise InvalidArgumentError("a contact sheet needs at least one picture")
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(weights, device=device)
    strips = []
    for path in pictures:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
        tiles = [_tile(picture, size)]
        try:
            asset: Any = pipeline.run(picture, seed=seed)[0]
            views = render_snapshot(
                asset, size, offset=FRONT_OFFSET, r=2.0, fov=36.0, nviews=SIDES, keys=["shaded"]
            )
            tiles += list(views["shaded"])
        except EmptyStructureError as error:
            log.warning("%s: %s", path.name, error)
            tiles += [np.full_like(tiles[0], 255)] * SIDES
        strips.append(np.concatenate(tiles, 1))
        log.info("%s done", path.name)
    strips += [np.full_like(strips[0], 255)] * (-len(strips) % columns)
    gap = np.full((size, size // 12, 3), 255, np.uint8)
    rows = []
    for first in range(0, len(strips), columns):
        line = [part for strip in strips[first : first + columns] for part in (gap, strip)][1:]
        rows.append(np.concatenate(line, 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out, quality=88)


def _tile(picture: Image.Image, size: int) -> np.ndarray:
    ground = Image.new("RGBA", picture.size, (*_GROUND, 255))
    flat = Image.alpha_composite(ground, picture).convert("RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.LANCZOS))
