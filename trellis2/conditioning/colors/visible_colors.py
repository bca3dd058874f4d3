"""Colours of voxels as the picture shows them, where the camera sees them.

A latent of texture covers 16^3 voxels, too few numbers for stripes and eyes; the picture shows these as they
are. All functions are pure and run on any device. Cameras are batches of one; N voxels lie on a grid of
`resolution`^3; a "cell" is one of the square depth map over the crop, about two voxels wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..upright import (
    UprightCamera,
    Window,
    crop_cells,
    crop_window,
    project_upright,
    sample_crop,
    voxel_points,
    window_places,
)

_VOXELS_A_CELL = 2  # of the depth map: with fewer a surface has holes
_MOST_CELLS = 512  # along a side
_BEHIND = 2.5  # voxels behind the first surface that still belong to it, beside its slope
_JUMP = 8.0  # voxels between neighbouring cells that make an edge, beside the slope
_FACING = (0.1, 0.3)  # cosines between surface and view: none and all of the picture's colour
_AGREEMENT = (0.5, 0.7)  # overlap of the silhouettes: none and all
_BINS = 12  # of each channel, in which differences of colour are gathered
_PRIOR = 0.002  # of the voxels: with fewer of a colour in sight, its shift is uncertain


@dataclass(frozen=True)
class Sight:
    """What a picture shows of N voxels: base colours `[N, 3]`, and how far to trust each, `[N]` in 0..1."""

    colors: torch.Tensor
    weights: torch.Tensor


def seen_colors(
    coords: torch.Tensor,
    resolution: int,
    picture: torch.Tensor,
    matte: torch.Tensor,
    camera: UprightCamera,
    window: Window | None = None,
) -> Sight:
    """What voxels `coords [N, 3]` are in a picture of base colours `[1, 3, S, S]` with a matte `[1, S, S]`,
    a crop that shows `window` (None: the tight square around the voxels).

    A voxel is trusted if it lies on the first surface that the camera meets, faces it, and is away from edges
    of depth, silhouette and matte, over which a slightly wrong camera would carry colours; and the less, the
    less the voxels' silhouette covers the matte.
    """
    plane, depth = project_upright(voxel_points(coords, resolution)[None], camera)
    window = crop_window(plane) if window is None else window
    places, voxel = window_places(plane, window), 1 / resolution
    middle = float(camera.axes()[0].norm() * camera.tangent * window[1])  # half of what the crop shows
    side = max(min(round(2 * middle * resolution / _VOXELS_A_CELL), _MOST_CELLS), 16)
    width = 2 * middle / side
    cell = crop_cells(places[0], side)
    first = torch.full((side * side,), torch.inf, device=depth.device)
    first = first.scatter_reduce(0, cell, depth[0], "amin").view(side, side)
    slope = _slope(first, width)
    covered = first.isfinite()
    mask = F.interpolate(matte[None], (side, side), mode="area")[0, 0] > 0.5
    agreement = (covered & mask).sum() / (covered | mask).sum().clamp(min=1)
    edges = _depth_edges(first, _JUMP * voxel + slope * width) | ~mask
    facing = _ramp((1 + slope.square()).rsqrt(), _FACING)
    trust = facing * _away_from(edges) * _ramp(agreement, _AGREEMENT)
    margin = _BEHIND * voxel + slope * width
    on_surface = depth[0] <= (first + margin).flatten()[cell]
    inside = places[0].abs().amax(-1) <= 1
    weights = sample_crop(trust[None, None], places)[0, :, 0] * on_surface * inside
    return Sight(sample_crop(picture, places)[0], weights)


def _ramp(values: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    return ((values - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)


def _slope(first: torch.Tensor, width: float) -> torch.Tensor:
    """Tangent `[H, W]` of the angle between the view and the surface of a depth map with cells of `width`.

    Along each axis the gentler of both sides, so that what lies behind an edge does not count.
    """
    step = 2  # depths are those of voxels: over one cell they would be mostly rounding
    around = F.pad(first, (step,) * 4, value=torch.inf)
    columns, rows = around[step:-step], around[:, step:-step]
    sides = ((columns[:, : -2 * step], columns[:, 2 * step :]), (rows[: -2 * step], rows[2 * step :]))
    total = torch.zeros_like(first)
    for before, after in sides:
        gaps = torch.stack([before - first, after - first]).abs().nan_to_num(nan=torch.inf)
        gentler = gaps.amin(0) / (step * width)
        total = total + torch.where(gentler.isfinite(), gentler, 0).square()
    return total.sqrt()


def _depth_edges(first: torch.Tensor, jump: torch.Tensor) -> torch.Tensor:
    """Cells `[H, W]` beside a jump of depth, on either side of it, and those beside nothing."""
    filled = first.clamp(max=9.0)[None, None]
    farthest, nearest = F.max_pool2d(filled, 3, 1, 1)[0, 0], -F.max_pool2d(-filled, 3, 1, 1)[0, 0]
    return (farthest - filled[0, 0] > jump) | (filled[0, 0] - nearest > jump)


def _away_from(edges: torch.Tensor) -> torch.Tensor:
    """0 at edges `[H, W]`, a half in the cells beside them, 1 elsewhere."""
    near = edges[None, None].float()
    beside = F.max_pool2d(near, 3, 1, 1)
    return 1 - (near + beside)[0, 0] / 2


def best_sight(sights: list[Sight], preference: float) -> Sight:
    """Of several pictures, for each voxel the one that shows it best; another than the first must do so by
    more than `preference`.
    """
    weights = torch.stack([sight.weights for sight in sights])
    ranked = weights.clone()
    ranked[0] += preference
    best = ranked.argmax(0)
    rows = torch.arange(len(best), device=best.device)
    return Sight(torch.stack([sight.colors for sight in sights])[best, rows], weights[best, rows])


def painted(colors: torch.Tensor, sight: Sight) -> torch.Tensor:
    """Colours `[N, 3]` of all voxels, with those of the picture where it shows them; where it does not, moved
    by what it says of visible voxels of similar colour.
    """
    weights = sight.weights[:, None]
    moved = colors + color_shift(colors, sight)
    return torch.lerp(moved, sight.colors, weights)


def color_shift(colors: torch.Tensor, sight: Sight) -> torch.Tensor:
    """How much the picture's colours differ from `colors [N, 3]`, smooth over colours: `[N, 3]`."""
    bins = (colors.clamp(0, 1) * (_BINS - 1)).round().long()
    rows = (bins[:, 2] * _BINS + bins[:, 1]) * _BINS + bins[:, 0]
    gaps = torch.cat([sight.colors - colors, torch.ones_like(colors[:, :1])], 1) * sight.weights[:, None]
    sums = gaps.new_zeros(_BINS**3, 4).index_add_(0, rows, gaps)
    table = sums.T.reshape(1, 4, _BINS, _BINS, _BINS)
    for _ in range(2):
        table = F.avg_pool3d(table, 3, 1, 1)
    table = table[:, :3] / (table[:, 3:] + _PRIOR * len(colors) / 27)
    places = (colors.clamp(0, 1) * 2 - 1)[None, :, None, None]
    read = F.grid_sample(table, places, mode="bilinear", align_corners=True)
    return read[0, :, :, 0, 0].T
