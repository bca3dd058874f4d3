"""Packing flat charts into a square atlas: the largest first, each as low as one of its turns allows.

Charts lie in cells; a free place may be a gap between others (bottom-left-fill: Hopper, Turton, "A review of
the application of meta-heuristic algorithms to 2D strip packing problems", 2001). The largest common scale
is searched for. Only the charts' outlines and inner cells go to the CPU for that, and their places come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import kernels
from ..arrays.groups import argsort_deterministic, expand_counts, group_sizes, nonzero_1d, run_starts
from ..arrays.vectors import gather_columns, length
from .clusters import principal_angles
from .flatten import FlatCharts, chart_boxes, covered_cells, signed_areas

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TURNS = 8
_MANY_CHARTS = 200  # from here on quarter turns do; small charts fill the gaps anyway
_SHRINK_LIMIT = 80
_ATTEMPTS = 4  # to do better, once all charts have found a place
_FIRST_FILL = 0.7
_SHRINK, _GROW = 0.95, 1.04
_DENSE = 1.5
"""Inner points of a chart along a cell's side, so that none is missed at any turn."""


@dataclass(frozen=True)
class Packing:
    """`uvs` [2, W] in [0, 1]; `utilisation` is the charts' area over the atlas' (1)."""

    uvs: Tensor
    utilisation: float


@dataclass(frozen=True)
class _Outline:
    """`points` [2, N] along the borders of the charts, chart by chart, and how many `counts` [charts] each
    has, at least one."""

    points: Floats
    counts: Ints

    @cached_property
    def owner(self) -> Ints:
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def first(self) -> Ints:
        return np.cumsum(self.counts) - self.counts


@dataclass(frozen=True)
class _Places:
    """Where charts lie: `turns` [charts] of those tried, and lower-left corners [2, charts] in cells."""

    turns: Ints
    corners: Floats


def pack_charts(flat: FlatCharts, cells: int = 512) -> Packing:
    """Place charts in the unit square at one common scale, at least 1/cells apart.

    Texels are isotropic and of equal size on every chart; charts are turned, never mirrored.
    """
    charts = len(flat.valid)
    upright = _upright(flat.plane, flat.owner, charts)
    longest = float(upright.max())
    area = float(signed_areas(flat.plane, flat.faces).abs().sum())
    full = cells / max(area, 1e-30) ** 0.5  # the scale at which the charts' area is the atlas'
    limit = min((cells - 4) / max(longest, 1e-30), full)  # the longest chart must fit
    outline = _outline(upright, flat, spacing=0.5 / limit)
    inner = _inner(upright, flat, limit * _DENSE)
    turns = TURNS if charts < _MANY_CHARTS else TURNS // 2

    scale = min(limit, full * float(np.sqrt(_FIRST_FILL)))
    fitting, too_large = 0.0, np.inf
    places = _Places(np.zeros(charts, dtype=np.int64), np.zeros((2, charts)))
    last = _SHRINK_LIMIT
    for attempt in range(_SHRINK_LIMIT):
        tried = _pack(outline, inner, scale, cells, turns)
        if tried is not None:
            last = last if fitting else attempt + _ATTEMPTS
            fitting, places = scale, tried
        else:
            too_large = scale
        if fitting and (attempt >= last or scale >= limit or too_large < 1.01 * fitting):
            break
        if np.isinf(too_large):
            scale = min(limit, _GROW * fitting)
        elif not fitting:
            scale *= _SHRINK
        else:
            scale = float(np.sqrt(fitting * too_large))
    angle = torch.from_numpy(places.turns * (2 * np.pi / turns)).to(upright.device)
    turned = _turn(upright * fitting, angle, flat.owner)
    shift = torch.from_numpy(places.corners).to(upright.device) - chart_boxes(turned, flat.owner, charts)[0]
    uvs = (turned + gather_columns(shift, flat.owner)) / cells
    return Packing(uvs.clamp_(0.0, 1.0), area * fitting**2 / cells**2)


def _upright(plane: Tensor, owner: Tensor, charts: int) -> Tensor:
    """Turn each chart so that its principal axis is vertical, the lower-left of its box at the origin."""
    offset, angle = principal_angles(plane, owner, charts)
    turned = _turn(offset, np.pi / 2 - angle, owner)
    return turned - gather_columns(chart_boxes(turned, owner, charts)[0], owner)


def _turn(points: Tensor, angle: Tensor, owner: Tensor) -> Tensor:
    """Turn points [2, N] by the angle [charts] (radians, counter-clockwise) of their chart."""
    (x, y), (cosine, sine) = points, gather_columns(torch.stack([angle.cos(), angle.sin()]), owner)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y])


def _outline(plane: Tensor, flat: FlatCharts, spacing: float) -> _Outline:
    """Points along the borders of all charts, chart by chart; the rest lies between them."""
    starts, ends = flat.faces.reshape(-1), flat.faces.roll(-1, dims=0).reshape(-1)
    keys = torch.minimum(starts, ends) * plane.shape[1] + torch.maximum(starts, ends)
    order = argsort_deterministic(keys)
    opens = nonzero_1d(run_starts(keys.index_select(0, order)))
    counts = torch.diff(opens, append=opens.new_tensor([len(order)]))
    edges = order.index_select(0, opens)
    chart = flat.owner.index_select(0, starts.index_select(0, edges))
    single = counts != 2
    bounded = torch.zeros_like(flat.valid).index_fill_(0, chart.index_select(0, nonzero_1d(single)), True)
    border = nonzero_1d(single | ~bounded.index_select(0, chart))  # all edges of a chart that is folded shut
    edges, chart = edges.index_select(0, border), chart.index_select(0, border)
    a, b = (gather_columns(plane, points.index_select(0, edges)) for points in (starts, ends))
    steps = (length(b - a) / max(spacing, 1e-30)).ceil().long() + 1
    edge, step = expand_counts(steps)
    points = gather_columns(a, edge) + gather_columns(b - a, edge) * (step / steps.index_select(0, edge))
    owner = chart.index_select(0, edge)
    sizes = group_sizes(owner, len(flat.valid))
    return _Outline(gather_columns(points, argsort_deterministic(owner)).cpu().numpy(), sizes.cpu().numpy())


def _inner(plane: Tensor, flat: FlatCharts, density: float) -> _Outline:
    """Points inside of the charts, `density` along a unit of the plane [2, N], chart by chart."""
    corners = gather_columns(plane, flat.faces.reshape(-1)).reshape(2, 3, -1).permute(1, 0, 2)  # [3, 2, F]
    face, column, row = covered_cells(corners * density)
    owner = flat.labels.index_select(0, face)
    order = argsort_deterministic(owner)
    points = (torch.stack([column, row]) + 0.5) / density
    counts = group_sizes(owner, len(flat.valid))
    return _Outline(gather_columns(points, order).cpu().numpy(), counts.cpu().numpy())


def _pack(outline: _Outline, inner: _Outline, scale: float, cells: int, turns: int) -> _Places | None:
    """Places of all charts at a scale (cells of a unit of the plane), or None where one finds none."""
    from .packing_kernels import pack_kernel

    charts = len(outline.counts)
    angles = np.arange(turns) * (2 * np.pi / turns)
    rotations = scale * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (x, y), (cosine, sine) = outline.points, rotations.T[..., None]
    along = np.stack([cosine * x - sine * y, sine * x + cosine * y])  # [2, turns, N]
    low = np.minimum.reduceat(along, outline.first, axis=2)  # [2, turns, charts]
    cell = (along - low[..., outline.owner]).astype(np.int32)
    sizes = np.maximum.reduceat(cell, outline.first, axis=2) + 1
    item = outline.owner * turns + np.arange(turns)[:, None]  # [turns, N]
    # Far apart ones first: most places are found taken after a look or two.
    keys = np.unique(((item * cells + cell[1]) * cells + cell[0]).ravel())
    keys = np.random.default_rng(0).permutation(keys)
    item = keys // cells**2
    order = np.argsort(item, kind="stable")
    keys, item = keys[order], item[order]
    border = np.stack([keys % cells, keys // cells % cells], axis=1).astype(np.int32)
    first_border = np.searchsorted(item, np.arange(turns * charts + 1)).astype(np.int32)
    per_item = [np.ascontiguousarray(a.transpose(2, 1, 0).reshape(-1, 2)) for a in (sizes, low)]
    largest_first = np.argsort(-sizes[:, 0].max(axis=0), kind="stable").astype(np.int32)
    first_inner = np.append(inner.first, len(inner.owner)).astype(np.int32)
    turn_of, placed = torch.zeros(charts, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    place_of = torch.zeros((charts, 2), dtype=torch.int32)
    state = torch.zeros(cells * cells, dtype=torch.int32), torch.zeros(cells * cells, dtype=torch.uint8)

    inputs = [
        largest_first,
        turns,
        rotations.astype(np.float32),
        border,
        first_border,
        per_item[0],
        per_item[1].astype(np.float32),
        np.pad(inner.points.T, ((0, 1), (0, 0))).astype(np.float32),  # never empty
        first_inner,
        cells,
    ]
    inputs = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in inputs]
    kernels.launch(pack_kernel, 1, [*inputs, *state, turn_of, place_of, placed], "cpu")
    if int(placed) < charts:
        return None
    return _Places(turn_of.long().numpy(), place_of.T.double().numpy())
