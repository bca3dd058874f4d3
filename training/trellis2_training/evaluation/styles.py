"""Draws pictures in styles that show the model's limits: a flat icon, pixel art, a line drawing, pencil
hatching, clay, low polygons, cel shading, and a photo with a background.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from .. import world
from ..data import render as rd
from ..world import table as tb

SIZE = 512
# Held-out objects of all families, as offsets from the first.
TEAPOT, ROBOT, ELEPHANT, TURTLE, BURGER, PENGUIN = 10_048, 10_081, 10_099, 10_100, 10_109, 10_648


def draw_styles(folder: Path) -> list[Path]:
    """Write one picture for each style."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _STYLES.items():
        path = folder / f"{name}.{'jpg' if name == 'photo' else 'png'}"
        draw().save(path, quality=82, optimize=True)
        written.append(path)
    return written


def _table(offset: int) -> Tensor:
    return torch.from_numpy(world.object_table(world.HELD_OUT_ALL + offset))[None]


def _seen(
    tables: Tensor, yaw: float, pitch: float, size: int, margin: float = 1.15, supersample: int = 2
) -> rd.Picture:
    """An object from a camera in degrees, under a usual light, with some room around."""
    camera = rd.camera(*torch.deg2rad(torch.tensor([yaw, pitch, 30.0])).split(1))
    view = rd.crop_view(tables, camera)
    view = rd.View(
        view.position, view.right, view.up, view.forward, view.tangent, view.centre, view.half * margin
    )
    lights = rd.random_lights(view, torch.Generator().manual_seed(4))
    return rd.render(tables, view, lights, size, supersample)


def _image(rgb: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """`[3, S, S]` and, for RGBA, `[1, S, S]`, in 0..1."""
    planes = rgb if alpha is None else torch.cat([rgb, alpha])
    return Image.fromarray((planes.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _jumps(planes: Tensor) -> Tensor:
    """The largest step between neighbours in any plane `[1, C, S, S]` -> `[S, S]`."""
    return (F.max_pool2d(planes, 3, 1, 1) + F.max_pool2d(-planes, 3, 1, 1)).amax(1)[0]


def _lines(picture: rd.Picture, colours: bool = True) -> Tensor:
    """1 on the outlines of an object and its parts `[S, S]`."""
    planes = [picture.mask, 0.45 * picture.normal, 4 * (picture.position * picture.mask)]
    if colours:
        planes.append(picture.attributes[:, :3])
    return ((_jumps(torch.cat(planes, 1) * picture.mask) - 0.28) * 5).clamp(0, 1)


def flat_icon() -> Image.Image:
    """A bell on a disc, two tones to a colour."""
    image = Image.new("RGBA", (2 * SIZE, 2 * SIZE))
    pen = ImageDraw.Draw(image)
    pen.ellipse((20, 20, 1004, 1004), fill="#2f9e8f")
    pen.ellipse((430, 730, 594, 880), fill="#c9761a")
    pen.pieslice((262, 180, 762, 760), 180, 360, fill="#ffd257")
    pen.polygon([(262, 460), (762, 460), (800, 720), (224, 720)], fill="#ffd257")
    pen.pieslice((262, 180, 762, 760), 270, 360, fill="#f2b632")
    pen.polygon([(512, 460), (762, 460), (800, 720), (512, 720)], fill="#f2b632")
    pen.rounded_rectangle((180, 700, 844, 770), 35, fill="#e39a22")
    pen.rounded_rectangle((470, 130, 554, 220), 40, fill="#e39a22")
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def pixel_art() -> Image.Image:
    """A robot of 48 x 48 pixels in sixteen colours with a dark edge."""
    picture = _seen(_table(ROBOT), -25, 15, 48)
    mask = picture.mask[0, 0] > 0.5
    rgb = _image(picture.rgb[0] / picture.mask[0].clamp(min=1e-3)).quantize(16).convert("RGB")
    grown = F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0
    pixels = np.array(rgb)
    pixels[(grown & ~mask).numpy()] = (26, 20, 36)
    image = Image.fromarray(np.dstack([pixels, grown.numpy() * np.uint8(255)]))
    return image.resize((480, 480), Image.Resampling.NEAREST)


def line_drawing() -> Image.Image:
    """Black outlines of a teapot on white paper."""
    lines = _lines(_seen(_table(TEAPOT), 30, 25, SIZE), colours=False)
    return _image((1 - lines).expand(3, -1, -1)).convert("L")


def pencil_hatch() -> Image.Image:
    """A turtle in strokes that cross where it is dark, on warm paper."""
    picture = _seen(_table(TURTLE), 35, 25, SIZE)
    light = (picture.rgb[0].mean(0) / picture.mask[0, 0].clamp(min=1e-3)) ** 0.8
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    ink = torch.zeros(SIZE, SIZE)
    wobble = 2 * torch.sin(rows / 23) + 2 * torch.sin(columns / 31)
    for level, (a, b) in zip((0.85, 0.6, 0.4), ((1, 1), (1, -1), (0, 1)), strict=True):
        stroke = torch.cos((a * rows + b * columns + wobble) * (2 * torch.pi / 9)) > 0.35
        ink = torch.maximum(ink, 0.55 * (stroke & (light < level)) * picture.mask[0, 0])
    ink = torch.maximum(ink, 0.8 * _lines(picture))
    paper = torch.tensor([0.97, 0.95, 0.9]).view(3, 1, 1)
    return _image(paper * (1 - ink) + 0.2 * ink).quantize(48)


def clay() -> Image.Image:
    """An elephant of one clay, thumbed here and there."""
    tables = _table(ELEPHANT)
    tables[..., tb.PATTERN] = 0
    tables[..., tb.BASE : tb.BASE + 3] = torch.tensor([0.76, 0.47, 0.36])
    tables[..., tb.METALLIC], tables[..., tb.ROUGHNESS] = 0.0, 0.95
    tables[..., tb.BUMP], tables[..., tb.BUMP_FREQUENCY] = 0.006, 55.0
    picture = _seen(tables, 30, 15, 384)
    image = _image(picture.rgb[0] / picture.mask[0].clamp(min=1e-3), picture.mask[0])
    return image.quantize(96, Image.Quantize.FASTOCTREE)


def low_poly() -> Image.Image:
    """A penguin of flat triangles: grid points moved at random or to the outline, a colour for each."""
    size, step = 384, 20
    picture = _seen(_table(PENGUIN), -30, 12, size)
    rgb = (picture.rgb[0] / picture.mask[0].clamp(min=1e-3)).permute(1, 2, 0).numpy()
    mask = picture.mask[0, 0].numpy() > 0.5
    random = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(0, size + step, step)] * 2, indexing="ij"), -1)
    points = grid + random.uniform(-0.35, 0.35, grid.shape) * step
    outline = np.argwhere(_jumps(picture.mask).numpy() > 0.5)
    away = np.linalg.norm(points[:, :, None] - outline, axis=-1)
    points = np.where((away.min(-1) < 0.6 * step)[..., None], outline[away.argmin(-1)], points)
    image = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(image)
    for a, b, c, d in zip(
        *(q.reshape(-1, 2) for q in (points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:])),
        strict=True,
    ):
        for triangle in ((a, b, c), (a, c, d)):
            inner = random.dirichlet((1, 1, 1), 24) @ np.stack(triangle)
            y, x = inner.clip(0, size - 1).astype(int).T
            if mask[y, x].mean() > 0.5:
                colour = (rgb[y, x][mask[y, x]].mean(0) * 255).clip(0, 255).round()
                fill = (int(colour[0]), int(colour[1]), int(colour[2]))
                pen.polygon([(float(q[1]), float(q[0])) for q in triangle], fill=fill, outline=fill)
    return image


def cel_shaded() -> Image.Image:
    """A burger in two steps of light with thick black lines."""
    picture = _seen(_table(BURGER), 20, 20, 2 * SIZE, supersample=1)
    toward = F.normalize(torch.tensor([-0.5, -0.6, 0.8]), dim=0).view(3, 1, 1)
    light = (picture.normal[0] * toward).sum(0)
    shade = torch.where(light > 0.35, 1.0, 0.68) + 0.25 * (light > 0.97)
    lines = F.max_pool2d(_lines(picture)[None], 5, 1, 2)
    alpha = torch.maximum(picture.mask[0], lines)
    image = _image(picture.attributes[0, :3] * shade * (1 - lines) + 0.05 * lines, alpha)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).quantize(96, Image.Quantize.FASTOCTREE)


def photo() -> Image.Image:
    """A teapot on a wooden table in front of a blurred room, with a shadow, noise and JPEG."""
    picture = _seen(_table(TEAPOT), -25, 18, SIZE, margin=1.5)
    random = np.random.default_rng(5)
    room = Image.new("RGB", (SIZE, SIZE), "#8d9aa3")
    pen = ImageDraw.Draw(room)
    for x, y, r in random.uniform((0, 0, 20), (SIZE, 300, 70), (26, 3)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in random.integers(60, 240, 3)))
    room = room.filter(ImageFilter.GaussianBlur(22))
    ground = Image.new("RGB", (SIZE, SIZE))
    grain = np.add.outer(np.arange(SIZE) * 0.11, 1.5 * np.sin(np.arange(SIZE) / 60))
    wood = np.array([150, 104, 66]) + 22 * np.sin(grain * 2)[..., None] + 10 * np.sin(grain * 7.3)[..., None]
    ground.paste(Image.fromarray(wood.clip(0, 255).astype(np.uint8)))
    room.paste(ground.crop((0, 290, SIZE, SIZE)), (0, 290))
    rows = (picture.mask[0, 0] > 0.5).any(1).nonzero()
    low = int(rows.max())
    shadow = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(shadow).ellipse((110, low - 45, 440, low + 25), fill=170)
    room.paste((35, 25, 18), mask=shadow.filter(ImageFilter.GaussianBlur(12)))
    room.paste(
        _image(picture.rgb[0] / picture.mask[0].clamp(min=1e-3)),
        mask=_image(picture.mask[0].expand(3, -1, -1)).convert("L"),
    )
    heights, widths = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    lens = (1 - 0.28 * (heights**2 + widths**2) / 2)[..., None]
    warm = np.asarray(room) * lens * np.array([1.04, 1.0, 0.92]) + random.normal(0, 4, (SIZE, SIZE, 1))
    return Image.fromarray(warm.clip(0, 255).astype(np.uint8))


_STYLES: dict[str, Callable[[], Image.Image]] = {
    f.__name__: f
    for f in (flat_icon, pixel_art, line_drawing, pencil_hatch, clay, low_poly, cel_shaded, photo)
}
