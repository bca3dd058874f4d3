"""Pictures as people bring them: other renderers' looks, matte errors, soft or small pictures, JPEG.

All choices are drawn on the CPU, so that nothing waits for the device; what only some pictures get is
computed for those alone.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from . import render as rd

FLAT, TOON, CLAY, CONTRAST = range(4)
LOOKS = 0.2  # of the pictures look like those of another renderer
MATTES = 0.25  # have errors of the matte
SOFT = 0.3  # are blurred, small, or JPEG
EXPOSED = 0.15  # are much too dark, bright, warm or cold


def some(count: int, share: float, generator: torch.Generator, device: torch.device) -> Tensor | None:
    """Rows of about a `share` of `count` pictures, None for none."""
    rows = (torch.rand(count, generator=generator) < share).nonzero()[:, 0]
    return rows.to(device) if len(rows) else None


def _each(
    count: int, generator: torch.Generator, device: torch.device, *ranges: tuple[float, float]
) -> list[Tensor]:
    """A column `[count, 1, 1, 1]` for each range, in one transfer."""
    drawn = torch.rand((len(ranges), count, 1, 1, 1), generator=generator)
    low, high = (torch.tensor([r[i] for r in ranges]).view(-1, 1, 1, 1, 1) for i in (0, 1))
    return list((low + (high - low) * drawn).to(device).unbind(0))


def other_looks(picture: rd.Picture, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[M, 3, S, S]` of some rows as flat icons, toon or matt hemisphere shading, or in strong
    contrast; every second of the first two with dark outlines.
    """
    mask, normal = picture.mask[rows], picture.normal[rows]
    base = picture.attributes[rows, :3].clamp(0, 1)
    count, device = len(rows), rows.device
    kind, side, up, outlined, bands, ink, width = _each(
        count, generator, device, (0, 4), (-0.8, 0.8), (0.3, 1), (0, 1), (1, 3), (0, 0.25), (0, 1)
    )
    kind = kind.floor().clamp(max=3)
    toward = F.normalize(torch.cat([side, -torch.ones_like(side), up], 1), dim=1)
    light = (normal * toward).sum(1, keepdim=True)
    bands = bands.round()  # 1 to 3 steps from dark to light
    toon = base * (0.55 + 0.45 * ((light.clamp(0, 1) * (bands + 1)).floor().clamp(max=bands) / bands))
    clay = base * (0.72 + 0.28 * normal[:, 2:3]) * (0.8 + 0.2 * light.clamp(0, 1))
    lit = picture.rgb[rows] / mask.clamp(min=1e-3)
    strong = torch.lerp(lit, lit * lit * (3 - 2 * lit), 0.6 + 0.6 * width)
    chosen = torch.where(
        kind == FLAT, base, torch.where(kind == TOON, toon, torch.where(kind == CLAY, clay, strong))
    )
    drawn = chosen.clamp(0, 1) * mask
    # Outlines where mask, normal or colour jump between neighbours: thin ones, or a pixel wider.
    field = torch.cat([mask, 0.5 * normal, base], 1) * mask
    jump = (F.max_pool2d(field, 3, 1, 1) + F.max_pool2d(-field, 3, 1, 1)).amax(1, keepdim=True)
    edge = ((jump - 0.35) * 6).clamp(0, 1)
    edge = torch.where(width > 0.5, F.max_pool2d(edge, 3, 1, 1), edge)
    edge = edge * mask * ((kind <= TOON) & (outlined > 0.5))
    return drawn * (1 - edge) + ink * edge * mask


def imperfect_mattes(rgb: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Premultiplied pictures `[M, 3, S, S]` cut out again along a wrong edge: eroded, with a seam of the
    background, or soft; a bit of the object is missing, or of the background left, in every fourth.
    """
    count, device, size = len(rgb), rgb.device, rgb.shape[-1]
    level, sharp, red, green, blue, bit, x, y, wide, high = _each(
        count,
        generator,
        device,
        *((0.12, 0.8), (1.5, 12), (0, 1), (0, 1), (0, 1)),
        *((0, 1), (-0.9, 0.9), (-0.9, 0.9), (0.06, 0.22), (0.06, 0.22)),
    )
    blurred = mask
    for _ in range(2):
        blurred = F.avg_pool2d(blurred, 5, 1, 2, count_include_pad=False)
    sharp = torch.maximum(sharp, 0.5 / torch.minimum(level, 1 - level))  # 0 far outside, 1 far inside
    alpha = ((blurred - level) * sharp + 0.5).clamp(0, 1)
    axis = torch.linspace(-1, 1, size, device=device)
    inside = ((axis.view(1, 1, 1, -1) - x) / wide) ** 2 + ((axis.view(1, 1, -1, 1) - y) / high) ** 2 < 1
    alpha = torch.where(inside & (bit < 0.15), alpha * 0.1, alpha)
    near = F.max_pool2d(mask, 9, 1, 4)  # what is left of the background hangs on the object
    alpha = torch.where(inside & (bit > 0.9), near, alpha)
    return (rgb + (1 - mask) * torch.cat([red, green, blue], 1)) * alpha


def softened(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[M, 3, S, S]` enlarged from a smaller size, the same for all."""
    size = rgb.shape[-1]
    smaller = int(size * (0.3 + 0.6 * torch.rand((), generator=generator).item()))
    small = F.interpolate(rgb, (smaller, smaller), mode="area")
    return F.interpolate(small, (size, size), mode="bilinear", align_corners=False)


@cache
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal discrete cosine transform of 8 values `[8, 8]`."""
    k = torch.arange(8, dtype=torch.float32)
    rows = torch.cos((2 * k + 1) * k[:, None] * torch.pi / 16) * 0.5
    rows[0] /= 2**0.5
    return rows.to(device)


def jpeg(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[M, 3, S, S]` with the losses of JPEG at qualities from about 20 to 90: colour differences at
    half the resolution, blocks of 8 x 8 rounded in steps that grow with frequency (a smooth stand-in for the
    tables of ITU-T T.81, Annex K).
    """
    size = rgb.shape[-1]
    padded = F.pad(rgb, (0, -size % 16, 0, -size % 16), mode="replicate")
    (strength,) = _each(len(rgb), generator, rgb.device, (0.2, 2.5))
    red, green, blue = padded.split(1, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    colour = F.avg_pool2d(torch.cat([(blue - luma) * 0.564, (red - luma) * 0.713], 1), 2)
    k = torch.arange(8, device=rgb.device)
    steps = (10 + 6 * (k[:, None] + k)) / 255
    luma = _rounded(luma, strength * steps)
    colour = _rounded(colour, strength * 1.6 * steps)
    cb, cr = F.interpolate(colour, scale_factor=2, mode="nearest").split(1, 1)
    red, blue = luma + cr / 0.713, luma + cb / 0.564
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return torch.cat([red, green, blue], 1)[..., :size, :size].clamp(0, 1)


def _rounded(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes `[M, C, H, W]` with their blocks' cosine coefficients rounded to `steps` `[M, 1, 8, 8]`."""
    d = _cosines(planes.device)
    count, channels, height, width = planes.shape
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    steps = steps[:, :, None, None]
    with torch.autocast(planes.device.type, enabled=False):
        waves = ((d @ blocks @ d.T) / steps).round() * steps
        blocks = d.T @ waves @ d
    return blocks.transpose(3, 4).reshape(planes.shape)
