"""Pictures for background removal: rendered objects on walls and floors with procedural textures, and what
cameras and codecs do to them. Everything is made on the tables' device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from . import looks
from . import render as rd
from .batches import TableBank

_LATTICE = 16  # cells of a noise's period
_TILTS = (-5.0, 55.0)  # degrees: pitch of cameras
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Cutout:
    """Objects without a background, and the floor that they stand on; `[B, *, S, S]`."""

    rgb: Tensor  # 3, premultiplied by the mask
    mask: Tensor  # 1, 0..1
    floor: Tensor  # 2, where a pixel's ray meets the floor, in sides of the object's cube
    ground: Tensor  # 1, 1 on the floor and 0 above the horizon
    sunlit: Tensor  # 1, 0 in the object's shadow on the floor

    @property
    def channels(self) -> Tensor:
        """All in one `[B, 8, S, S]`."""
        return torch.cat([self.rgb, self.mask, self.floor, self.ground, self.sunlit], 1)

    @classmethod
    def of(cls, channels: Tensor) -> Cutout:
        """From `channels`."""
        return cls(*channels.split([3, 1, 2, 1, 1], 1))


class Draw:
    """Uniform numbers on a device, the same on every one: `draw(low, high, *shape)`."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device
        self.left = torch.empty(0)

    def __call__(self, low: float, high: float, *shape: int) -> Tensor:
        count = math.prod(shape)
        if count > len(self.left):  # many at once: a copy to the device for each call would be slow
            self.left = torch.rand(max(_CHUNK, count), generator=self.generator).to(self.device)
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn.view(shape) * (high - low) + low


def cutouts(tables: Tensor, generator: torch.Generator, size: int) -> Cutout:
    """A picture of each object from any side, somewhere in the frame, now and then cut by its edge."""
    count, device = len(tables), tables.device
    draw = Draw(generator, device)
    yaw, pitch, fov = draw(-math.pi, math.pi, count), draw(*_TILTS, count), draw(20, 55, count)
    view = rd.crop_view(tables, rd.camera(yaw, torch.deg2rad(pitch), torch.deg2rad(fov), device), 64)
    grown = view.half * draw(1.05, 2.3, count)
    room = (grown - 0.9 * view.half)[:, None]  # of it the object leaves the frame by a tenth at most
    centre = view.centre + room * draw(-1, 1, count, 2) * draw(0, 1, count, 1).sqrt()
    view = rd.View(view.position, view.right, view.up, view.forward, view.tangent, centre, grown)
    lights = rd.random_lights(view, generator)
    picture = rd.render(tables, view, lights, size, supersample=2)
    rgb = picture.rgb
    if (rows := looks.some(count, looks.LOOKS, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, looks.other_looks(picture, rows, generator))
    return Cutout(rgb, picture.mask, *_floor(tables, view, lights, picture, draw))


def _floor(
    tables: Tensor, view: rd.View, lights: rd.Lights, picture: rd.Picture, draw: Draw
) -> tuple[Tensor, Tensor, Tensor]:
    """The plane under the lowest point that is seen, up to a wall behind it."""
    count, size = len(tables), picture.mask.shape[-1]
    heights = torch.where(picture.mask > 0.5, picture.position[:, 2:], picture.position.new_tensor(0.5))
    height = heights.amin((1, 2, 3))[:, None]
    origins, directions = rd.rays(view, size)
    down = (-directions[..., 2]).clamp(min=1e-3)
    away = (origins[..., 2] - height) / down
    place = origins + away[..., None] * directions
    behind = (place * view.forward[:, None]).sum(-1) - draw(0.6, 4, count)[:, None]
    ground = (directions[..., 2] < -1e-2) & (behind < 0)
    toward = lights.sun[:, None].expand_as(place).contiguous()
    start, reach = rd._through_cube(place, toward)
    reach = torch.where(ground, reach, torch.zeros_like(reach))
    t, least = rd.trace(tables, place.contiguous(), toward, start + 0.01, reach, 24)
    softness = draw(4, 30, count)[:, None]
    lit = torch.where((t < reach) & ground, torch.zeros_like(t), (least * softness).clamp(0, 1))

    def image(values: Tensor) -> Tensor:
        return values.transpose(1, 2).unflatten(2, (size, size))

    return image(place[..., :2]), image(ground[..., None].to(place.dtype)), image(lit[..., None])


# ---- textures: places [B, 2, S, S] to colours [B, 3, S, S]


def noise(place: Tensor, draw: Draw, octaves: int = 1, channels: int = 1) -> Tensor:
    """Smooth periodic noise in 0..1 at places whose unit is one cell; each octave at half the size."""
    total, weight, count = 0.0, 0.0, len(place)
    values = place.new_zeros(count, channels, *place.shape[2:])
    for octave in range(octaves):
        lattice = F.pad(draw(0, 1, count, channels, _LATTICE, _LATTICE), (0, 1, 0, 1), mode="circular")
        within = (place * 2**octave / _LATTICE + draw(0, 1, count, 2, 1, 1)) % 1
        read = F.grid_sample(lattice, within.permute(0, 2, 3, 1) * 2 - 1, align_corners=True)
        total = 0.5**octave
        values, weight = values + total * read, weight + total
    return values / weight


def _colours(draw: Draw, count: int, near: float = 1.0) -> tuple[Tensor, Tensor]:
    """Two colours `[B, 3, 1, 1]` for each picture, from greys to bright ones, at most `near` apart."""
    grey, tint = draw(0.05, 1, count, 1, 1, 1), draw(-0.35, 0.35, count, 3, 1, 1)
    first = (grey + tint * draw(0, 1, count, 1, 1, 1)).clamp(0, 1)
    return first, (first + near * draw(-0.6, 0.6, count, 3, 1, 1)).clamp(0, 1)


def _mixed(share: Tensor, colours: tuple[Tensor, Tensor]) -> Tensor:
    return colours[0] + share * (colours[1] - colours[0])


def _turned(place: Tensor, draw: Draw, low: float, high: float) -> Tensor:
    """Places turned and scaled: `low` to `high` cells over the picture's width."""
    count = len(place)
    angle, scale = draw(0, 2 * math.pi, count, 1, 1), torch.exp(draw(math.log(low), math.log(high), count))
    x, y = place.unbind(1)
    turned = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], 1)
    return turned * scale[:, None, None, None]


def _plain(place: Tensor, draw: Draw) -> Tensor:
    studio = draw(0.75, 1, len(place), 1, 1, 1) + draw(-0.03, 0.03, len(place), 3, 1, 1)
    any_colour = _colours(draw, len(place))[0]
    return torch.where(draw(0, 1, len(place), 1, 1, 1) < 0.5, studio.clamp(0, 1), any_colour).expand(
        -1, -1, *place.shape[2:]
    )


def _gradient(place: Tensor, draw: Draw) -> Tensor:
    share = (_turned(place, draw, 0.5, 1.5)[:, :1] + draw(-0.5, 1, len(place), 1, 1, 1)).clamp(0, 1)
    return _mixed(share, _colours(draw, len(place), 0.8))


def _clouds(place: Tensor, draw: Draw) -> Tensor:
    share = noise(_turned(place, draw, 1, 6), draw, 5)
    contrast = draw(1, 4, len(place), 1, 1, 1)
    return _mixed(((share - 0.5) * contrast + 0.5).clamp(0, 1), _colours(draw, len(place)))


def _grain(place: Tensor, draw: Draw) -> Tensor:
    fine = noise(_turned(place, draw, 20, 90), draw, 2, channels=3)
    colour = _colours(draw, len(place), 0.6)
    mixed = draw(0, 1, len(place), 1, 1, 1) < 0.6
    return _mixed(torch.where(mixed, fine.mean(1, keepdim=True), fine), colour)


def _stripes(place: Tensor, draw: Draw) -> Tensor:
    wave = torch.sin(2 * math.pi * _turned(place, draw, 2, 14)[:, :1])
    return _mixed(
        (wave * draw(1, 20, len(place), 1, 1, 1)).clamp(-1, 1) / 2 + 0.5, _colours(draw, len(place))
    )


def _wood(place: Tensor, draw: Draw) -> Tensor:
    count, place = len(place), _turned(place, draw, 1, 5)
    plank = torch.floor(place[:, 1:])
    along = place[:, :1] + 7.3 * plank
    warp = noise(torch.cat([along * 0.4, place[:, 1:] * 2], 1), draw, 3)
    rings = torch.sin(2 * math.pi * (draw(2, 6, count, 1, 1, 1) * place[:, 1:] + 5 * warp))
    tone = noise(torch.cat([plank, plank], 1) * 3.1, draw)
    gap = ((place[:, 1:] - plank - 0.5).abs() > 0.485).float() * draw(0, 0.8, count, 1, 1, 1)
    value = draw(0.25, 0.9, count, 1, 1, 1) * (0.75 + 0.1 * rings + 0.3 * tone) * (1 - gap)
    brown = 1 - draw(0, 1, count, 1, 1, 1) * value.new_tensor([0.0, 0.3, 0.6]).view(1, 3, 1, 1)
    return (value * brown).clamp(0, 1)


def _tiles(place: Tensor, draw: Draw) -> Tensor:
    count, place = len(place), _turned(place, draw, 2, 10)
    bricks = (draw(0, 1, count, 1, 1, 1) < 0.5).float()
    row = torch.floor(place[:, 1:])
    place = torch.cat([place[:, :1] * (1 - 0.5 * bricks) + 0.5 * bricks * (row % 2), place[:, 1:]], 1)
    cell = torch.floor(place)
    joint = ((place - cell - 0.5).abs().amax(1, keepdim=True) > draw(0.43, 0.49, count, 1, 1, 1)).float()
    tone = noise(cell * 1.37, draw)
    chess = (cell.sum(1, keepdim=True) % 2) * (draw(0, 1, count, 1, 1, 1) < 0.4).float()
    first, second = _colours(draw, count)
    faces = _mixed(chess, (first, second)) * (1 - 0.4 * tone)
    return _mixed(joint, (faces, _colours(draw, count)[0]))


def _blobs(place: Tensor, draw: Draw) -> Tensor:
    """Discs and rectangles of any size, sharp or out of focus: rooms, shelves, gardens behind an object."""
    count = len(place)
    colour = _mixed(noise(_turned(place, draw, 1, 4), draw, 4), _colours(draw, count))
    blur = draw(0.003, 0.25, count, 1, 1, 1) * draw(0, 1, count, 1, 1, 1)
    for _ in range(14):
        offset = (place - draw(-1.2, 1.2, count, 2, 1, 1)) / draw(0.05, 0.6, count, 2, 1, 1)
        square = draw(0, 1, count, 1, 1, 1) < 0.5
        distance = torch.where(square, offset.abs().amax(1, keepdim=True), offset.norm(dim=1, keepdim=True))
        share = ((1 - distance) / (blur + 0.02) + 0.5).clamp(0, 1)
        part = _mixed(noise(_turned(place, draw, 2, 30), draw, 2), _colours(draw, count, 0.5))
        colour = _mixed(share, (colour, part))
    return colour


def _leaves(place: Tensor, draw: Draw) -> Tensor:
    count, place = len(place), _turned(place, draw, 3, 20)
    sharp = draw(3, 15, count, 1, 1, 1)
    layers = [((noise(place * s, draw, 2) - 0.5) * sharp + 0.5).clamp(0, 1) for s in (1.0, 1.7, 2.9)]
    dark, light = _colours(draw, count)
    return _mixed(layers[0] * 0.6 + layers[1] * 0.4, (dark * 0.6, _mixed(layers[2], (light, dark)))).clamp(
        0, 1
    )


TEXTURES: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "plain": _plain,
    "gradient": _gradient,
    "clouds": _clouds,
    "grain": _grain,
    "stripes": _stripes,
    "wood": _wood,
    "tiles": _tiles,
    "blobs": _blobs,
    "leaves": _leaves,
}
SIMPLE = ("plain", "gradient")
SIMPLE_SHARE = 0.15  # of pictures, besides those by chance: most that people bring have such a background


def drawn_textures(kinds: list[str], place: Tensor, draw: Draw) -> Tensor:
    """The textures `kinds`, one for each of the pictures, at places `[B, 2, S, S]`."""
    out = place.new_zeros(len(place), 3, *place.shape[2:])
    for kind, texture in TEXTURES.items():
        rows = [i for i, name in enumerate(kinds) if name == kind]
        if rows:
            out[rows] = texture(place[rows], draw).to(out.dtype)
    return out


@cache
def _frame(size: int, device: torch.device) -> Tensor:
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]  # [1, 2, S, S]


def composites(cut: Cutout, kinds: list[str], draw: Draw, repaint: bool = False) -> Tensor:
    """Objects on backgrounds of `kinds`, as a camera and a codec leave them: `[B, 3, S, S]`.

    A background is a wall, or a floor with the object's shadow on it and a wall. To `repaint` puts textures
    over the colours of a third of the objects: subjects may be as busy as what lies behind them.
    """
    count, size, device = len(cut.mask), cut.mask.shape[-1], cut.mask.device
    frame = _frame(size, device).expand(count, -1, -1, -1)
    # Far away a texture would be finer than pixels.
    places, names = [frame, 2 * cut.floor.clamp(-8, 8)], [*kinds, *kinds]
    painted = count // 3 if repaint else 0
    if painted:
        every = list(TEXTURES)
        chosen = torch.randint(len(every), (painted,), generator=draw.generator).tolist()
        places, names = [*places, frame[:painted]], [*names, *(every[i] for i in chosen)]
    wall, floor, paint = drawn_textures(names, torch.cat(places), draw).split([count, count, painted])
    subject = cut.rgb
    if painted:
        gain = 1 + draw(0, 1, painted, 1, 1, 1) * (2 * paint - 1)
        subject = torch.cat([(subject[:painted] * gain).clamp(0, 1), subject[painted:]])
    stands = (draw(0, 1, count, 1, 1, 1) < 0.6).float()
    alike = draw(0, 1, count, 1, 1, 1) < 0.5
    shade = 1 - draw(0, 0.75, count, 1, 1, 1) * (1 - cut.sunlit)
    behind = _mixed(stands * cut.ground, (wall, torch.where(alike, wall, floor) * shade))
    light = 1 + draw(-0.35, 0.35, count, 2, 1, 1) * frame
    vignette = 1 - draw(0, 0.3, count, 1, 1, 1) * frame.square().sum(1, keepdim=True) / 2
    behind = behind * light.prod(1, keepdim=True) * vignette
    soft = (draw(0, 1, count, 1, 1, 1) < 0.35).to(behind.dtype)
    behind = _mixed(soft, (behind, _blurred(behind, max(size // 32, 1)))).clamp(0, 1)
    return photographed(subject + (1 - cut.mask) * behind, draw)


def _blurred(images: Tensor, radius: int) -> Tensor:
    for _ in range(2):
        padded = F.pad(images, (radius,) * 4, mode="replicate")
        images = F.avg_pool2d(padded, 2 * radius + 1, stride=1)
    return images


def photographed(images: Tensor, draw: Draw) -> Tensor:
    """Pictures without black around them, as cameras, scalers and codecs leave them."""
    count, generator, device = len(images), draw.generator, images.device
    images = images * draw(0.8, 1.2, count, 1, 1, 1) * draw(0.95, 1.05, count, 3, 1, 1)
    images = images + draw(0, 1, count, 1, 1, 1) ** 2 * (_blurred(images, 1) - images)
    noise = draw(0, 0.03, count, 1, 1, 1) * draw(0, 1, count, 1, 1, 1)
    images = (images + noise * torch.randn(images.shape, device=device)).clamp(0, 1)
    if (rows := looks.some(count, 2 / 3, generator, device)) is not None:
        images = images.index_copy(0, rows, looks.jpeg(images[rows], generator))
    return images


class CutoutPool:
    """Cut-outs to draw from again and again: to render one takes longer than to put it on a background."""

    def __init__(self, bank: TableBank, size: int, most: int, at_once: int) -> None:
        self.bank, self.at_once = bank, at_once
        device = bank.tables.device
        most = -(-most // at_once) * at_once
        self.kept = torch.empty(most, 8, size, size, device=device, dtype=torch.float16)
        self.draw = Draw(bank.generator, device)
        self.filled = self.next = 0

    @torch.no_grad()
    def grow(self) -> None:
        """Render some more, in place of the oldest once there are enough."""
        _, tables = self.bank.draw(self.at_once)
        made = cutouts(tables, self.bank.generator, self.kept.shape[-1])
        self.kept[self.next : self.next + self.at_once] = made.channels.half()
        self.filled = max(self.filled, self.next + self.at_once)
        self.next = (self.next + self.at_once) % len(self.kept)

    @torch.no_grad()
    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures `[B, 3, S, S]` and their true mattes `[B, 1, S, S]`."""
        generator, draw = self.bank.generator, self.draw
        rows = torch.randint(self.filled, (count,), generator=generator).to(self.kept.device)
        cut = Cutout.of(self.kept[rows].float())
        names = list(TEXTURES)
        chosen = torch.randint(len(names), (count,), generator=generator).tolist()
        simple = torch.rand(count, generator=generator).lt(SIMPLE_SHARE).tolist()
        kinds = [SIMPLE[i % 2] if often else names[i] for i, often in zip(chosen, simple, strict=True)]
        pictures = composites(cut, kinds, draw, repaint=True)
        mirrored = draw(0, 1, count, 1, 1, 1) < 0.5
        pictures, truth = (torch.where(mirrored, x.flip(3), x) for x in (pictures, cut.mask))
        return pictures, truth
