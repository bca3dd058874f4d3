"""Measures background removers on held-out objects over procedural backgrounds, and over photos."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from trellis2.conditioning.matting.matte import ignore
from trellis2.conditioning.preprocess import with_matte
from trellis2.conditioning.registry import build_background_remover

from .. import world
from ..data import backgrounds as bg

log = logging.getLogger(__name__)

GRABCUT = {"name": "GrabCutMatting", "args": {}}
PHOTO = "photo"
_SEED = 5_000_000  # of pictures: not those of other evaluations
_FIRST = 20_000  # held-out numbers beyond those that other evaluations use


@dataclass(frozen=True)
class Sample:
    """A picture (RGB) with its true matte `[H, W]` in 0..1."""

    kind: str
    picture: Image.Image
    truth: npt.NDArray[np.float32]


def measure_matting(
    weights: Path,
    objects: int,
    out: Path,
    size: int = 384,
    device: str = "cpu",
    pictures: Path | None = None,
    photos: Path | None = None,
    sheet: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Overlap (IoU of alpha above a half), error of alpha and seconds of GrabCut and of the package's own
    remover, for all pictures and by kind of background. `pictures` keeps the composites, and is read where it
    has them; `photos` are backgrounds besides the procedural ones, one on each eighth object.
    """
    removers = {"GrabCutMatting": build_background_remover(GRABCUT)}
    entry = json.loads((weights / "pipeline.json").read_text(encoding="utf-8"))["args"]["rembg_model"]
    removers.setdefault(entry["name"], build_background_remover(entry, weights))
    rows: list[dict[str, float | str]] = []
    tiles = []
    for sample in samples(objects, size, torch.device(device), pictures, photos):
        row: dict[str, float | str] = {"kind": sample.kind}
        tiles.append([sample.picture])
        for name, remover in removers.items():
            began = time.perf_counter()
            matted = with_matte(sample.picture, remover, getattr(remover, "subjects", "all"), ignore)
            row[f"{name} seconds"] = time.perf_counter() - began
            alpha = as_matte(np.asarray(matted.getchannel("A")))
            row[f"{name} iou"], row[f"{name} error"] = overlap(alpha, sample.truth)
            tiles[-1].append(
                Image.alpha_composite(Image.new("RGBA", matted.size, (255, 0, 255, 255)), matted)
            )
        rows.append(row)
    table = _means(rows, [key for key in rows[0] if key != "kind"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"means": table, "each": rows}, indent=1) + "\n", encoding="utf-8")
    if sheet is not None:
        _sheet(tiles).save(sheet)
    return table


def as_matte(alpha: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """8 bits to 0..1."""
    return np.asarray(alpha / 255, dtype=np.float32)


def overlap(alpha: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Intersection over union of what is above a half, and the mean absolute error of alpha."""
    found, true = alpha > 0.5, truth > 0.5
    either = (found | true).sum()
    return float((found & true).sum() / either) if either else 1.0, float(np.abs(alpha - truth).mean())


def _means(rows: list[dict[str, float | str]], figures: list[str]) -> dict[str, dict[str, float]]:
    kinds = sorted({str(row["kind"]) for row in rows})
    chosen = {kind: [row for row in rows if row["kind"] == kind] for kind in kinds}
    textured = [row for row in rows if row["kind"] not in bg.SIMPLE]
    groups = {"all": rows, "textured": textured, **chosen}
    return {
        group: {figure: float(np.mean([float(row[figure]) for row in part])) for figure in figures}
        for group, part in groups.items()
        if part
    }


def samples(
    count: int, size: int, device: torch.device, kept: Path | None = None, photos: Path | None = None
) -> Iterator[Sample]:
    """The composites; kinds of background take turns."""
    backs = [] if photos is None else sorted(p for p in photos.iterdir() if p.suffix in (".png", ".jpg"))
    names = list(bg.TEXTURES)
    for i in range(count):
        photo = backs[i // 8 % len(backs)] if backs and i % 8 == 7 else None
        kind = PHOTO if photo is not None else names[i % len(names)]
        path = None if kept is None else kept / f"{i:04d}_{kind}_{size}.png"
        if path is not None and path.exists():
            with Image.open(path) as image:
                pixels = np.asarray(image)
        else:
            pixels = _composite(i, kind, size, device, photo)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
        truth = as_matte(pixels[..., 3])
        yield Sample(kind, Image.fromarray(np.ascontiguousarray(pixels[..., :3])), truth)


@torch.no_grad()
def _composite(
    number: int, kind: str, size: int, device: torch.device, photo: Path | None
) -> npt.NDArray[np.uint8]:
    """`[S, S, 4]`: the whole picture, and the true matte as its alpha."""
    table = torch.from_numpy(world.object_table(world.HELD_OUT_SEED + _FIRST + number))[None].to(device)
    torch.manual_seed(_SEED + number)  # of the sensor's noise
    generator = torch.Generator().manual_seed(_SEED + number)
    cut, draw = bg.cutouts(table, generator, size), bg.Draw(generator, device)
    if photo is None:
        made = bg.composites(cut, [kind], draw)
    else:
        with Image.open(photo) as image:
            back = np.asarray(ImageOps.fit(image.convert("RGB"), (size, size)), dtype=np.float32)
        behind = torch.from_numpy(back / 255).permute(2, 0, 1)[None].to(device)
        made = bg.photographed(cut.rgb + (1 - cut.mask) * behind, draw)
    pixels = torch.cat([made, cut.mask], 1)[0].permute(1, 2, 0)
    whole: npt.NDArray[np.uint8] = (pixels * 255).round().clamp(0, 255).byte().cpu().numpy()
    return whole


def _sheet(tiles: list[list[Image.Image]], side: int = 128, across: int = 6) -> Image.Image:
    """Pictures with what the removers leave of them, beside one another."""
    columns = len(tiles[0])
    rows = -(-len(tiles) // across)
    sheet = Image.new("RGB", (across * columns * side, rows * side))
    for i, line in enumerate(tiles):
        for j, tile in enumerate(line):
            place = ((i % across * columns + j) * side, i // across * side)
            sheet.paste(tile.convert("RGB").resize((side, side)), place)
    return sheet


def log_table(table: dict[str, dict[str, float]]) -> None:
    """The figures, a line for each kind of background."""
    for group, figures in table.items():
        log.info("%-9s %s", group, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
