"""Draws the example pictures: held-out objects, transparent and on plain grounds; a few in another style."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .. import world
from ..data import render as rd
from .evaluate import to_rgba
from .styles import draw_styles

log = logging.getLogger(__name__)

# Held-out numbers beyond those that evaluation uses.
_FIRST = 10_000
# Of all families, as offsets from the first held-out one, for eyes, stripes, dots and thin parts: bee, cat,
# penguin, ladybird, cupcake, deck chair, bicycle.
_CHOSEN = (10_216, 10_422, 10_212, 10_214, 10_546, 10_346, 10_445)
_GROUNDS = ((0.93, 0.93, 0.91), (0.55, 0.68, 0.8), (0.82, 0.74, 0.62))


def draw_examples(folder: Path, count: int, size: int, device: str) -> list[Path]:
    """Write `count` pictures of held-out objects of different families, every third on a plain ground, some
    chosen for what they show, at five eighths of the size, icons, and pictures in other styles.
    """
    chosen = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    )
    folder.mkdir(parents=True, exist_ok=True)
    # Families take turns: steps of four spread over them.
    pictures = [(world.HELD_OUT_SEED + _FIRST + 4 * i, size, i % 3 == 2) for i in range(count)]
    pictures += [(world.HELD_OUT_ALL + offset, size * 5 // 8, False) for offset in _CHOSEN]
    written = []
    for number, side, plain in pictures:
        table = torch.from_numpy(world.object_table(number)).to(chosen)
        path = folder / f"{world.family_of(number)}.png"
        _picture(table, number, side, plain).save(path, optimize=True)
        log.info("wrote %s", path)
        written.append(path)
    for name, draw in _ICONS.items():
        path = folder / f"icon_{name}.png"
        draw().resize((size, size), Image.Resampling.LANCZOS).save(path)
        written.append(path)
    return written + draw_styles(folder / "other_styles")


def _picture(table: Tensor, number: int, size: int, plain: bool) -> Image.Image:
    generator = torch.Generator().manual_seed(number)
    view = rd.crop_view(table[None], rd.random_views(1, generator, table.device))
    view = rd.View(
        view.position, view.right, view.up, view.forward, view.tangent, view.centre, view.half * 1.25
    )
    lights = rd.random_lights(view, generator)
    picture = rd.render(table[None], view, lights, size, supersample=2)
    image = to_rgba(picture)
    if not plain:
        return image
    colour = tuple(round(255 * c) for c in _GROUNDS[number % len(_GROUNDS)])
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (1024, 1024), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _house() -> Image.Image:
    image, pen = _canvas()
    pen.rectangle((220, 460, 804, 900), fill="#f2d7a0")
    pen.polygon([(150, 480), (512, 140), (874, 480)], fill="#c8452e")
    pen.rectangle((440, 620, 584, 900), fill="#6b4226")
    for x in (270, 640):
        pen.rectangle((x, 560, x + 114, 680), fill="#7fc4e8", outline="#ffffff", width=12)
    return image


def _mushroom() -> Image.Image:
    image, pen = _canvas()
    pen.rounded_rectangle((410, 480, 614, 900), 80, fill="#f5ead6")
    pen.pieslice((140, 140, 884, 900), 180, 360, fill="#d92b2b")
    for x, y, r in ((330, 380, 55), (512, 260, 70), (690, 400, 50)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill="#ffffff")
    return image


def _tree() -> Image.Image:
    image, pen = _canvas()
    pen.rectangle((462, 640, 562, 930), fill="#7a4b25")
    for x, y, r in ((380, 500, 190), (650, 500, 190), (512, 320, 210)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill="#3fa34d")
    return image


_ICONS = {"house": _house, "mushroom": _mushroom, "tree": _tree}
