"""Packing flat charts into a square atlas: the largest first, each as low as one of its turns allows.

Charts lie in cells; a free place may be a gap between others (bottom-left-fill: Hopper, Turton, "A review of
the application of meta-heuristic algorithms to 2D strip packing problems", 2001). The largest common scale
is searched for. Only the charts' outlines and inner cells go to the CPU for that, and their places come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
_MOST_BOXES = 1 << 26  # cells of all charts' boxes that are marked rather than sorted
_AHEAD = 7  # scales that are tried at once where there are cores: all that the next three can be
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

    fitting, places = _largest_fitting(
        lambda scale: _pack(outline, inner, scale, cells, turns),
        min(limit, full * float(np.sqrt(_FIRST_FILL))),
        limit,
    )
    if places is None:
        places = _Places(np.zeros(charts, dtype=np.int64), np.zeros((2, charts)))
    angle = torch.from_numpy(places.turns * (2 * np.pi / turns)).to(upright.device)
    turned = _turn(upright * fitting, angle, flat.owner)
    shift = torch.from_numpy(places.corners).to(upright.device) - chart_boxes(turned, flat.owner, charts)[0]
    uvs = (turned + gather_columns(shift, flat.owner)) / cells
    return Packing(uvs.clamp_(0.0, 1.0), area * fitting**2 / cells**2)


def _largest_fitting(
    tried: Callable[[float], _Places | None], first: float, limit: float
) -> tuple[float, _Places | None]:
    """The largest scale found, and the places of the charts at it; 0 and None where none fits."""
    search, places = _Search(first, 0.0, math.inf, limit), None
    known: dict[float, _Places | None] = {}
    last = _SHRINK_LIMIT
    for attempt in range(_SHRINK_LIMIT):
        scale = search.scale
        if scale not in known:
            scales = search.scales_ahead(_AHEAD if kernels.cpu_threads() >= _AHEAD else 1)
            known |= zip(scales, _on_threads(tried, scales), strict=True)
        found = known[scale]
        if found is not None:
            last = last if places is not None else attempt + _ATTEMPTS
            places = found
        search = search.after(found is not None)
        if places is not None and (attempt >= last or scale >= limit or search.narrow):
            break
    return search.fitting, places


def _on_threads(tried: Callable[[float], _Places | None], scales: list[float]) -> list[_Places | None]:
    found: dict[int, _Places | None] = {}
    kernels.on_cpu_threads(lambda k: found.update({k: tried(scales[k])}), len(scales))
    return [found[k] for k in range(len(scales))]


@dataclass(frozen=True)
class _Search:
    """A scale to try, the largest that is known to fit (0: none) and the smallest known not to."""

    scale: float
    fitting: float
    too_large: float
    limit: float

    @property
    def narrow(self) -> bool:
        return self.too_large < 1.01 * self.fitting

    def after(self, fits: bool) -> _Search:
        fitting, too_large = (self.scale, self.too_large) if fits else (self.fitting, self.scale)
        if math.isinf(too_large):
            scale = min(self.limit, _GROW * fitting)
        elif not fitting:
            scale = _SHRINK * self.scale
        else:
            scale = math.sqrt(fitting * too_large)
        return _Search(scale, fitting, too_large, self.limit)

    def scales_ahead(self, count: int) -> list[float]:
        """This scale and the next ones, whatever comes out of each; about `count` of them."""
        searches = [self]
        for search in searches:
            if len(searches) >= count:
                break
            searches += [search.after(True), search.after(False)]
        return list(dict.fromkeys(search.scale for search in searches))


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
    cell = np.empty((2, turns, outline.points.shape[1]), np.int32)
    low = np.empty((2, turns, charts))
    for turn, (cosine, sine) in enumerate(rotations):  # an axis of a turn at once stays in a core's cache
        for axis, (of_x, of_y) in enumerate(((cosine, -sine), (sine, cosine))):
            along = of_x * outline.points[0]
            along += of_y * outline.points[1]
            low[axis, turn] = np.minimum.reduceat(along, outline.first)
            along -= low[axis, turn][outline.owner]
            cell[axis, turn] = along
    sizes = np.maximum.reduceat(cell, outline.first, axis=2) + 1
    border, first_border = _border_cells(outline, cell, sizes)
    per_item = [np.ascontiguousarray(a.transpose(2, 1, 0).reshape(-1, 2)) for a in (sizes, low)]
    largest_first = np.argsort(-sizes[:, 0].max(axis=0), kind="stable").astype(np.int32)
    first_inner = np.append(inner.first, inner.counts.sum()).astype(np.int32)
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


def _border_cells(
    outline: _Outline, cell: NDArray[np.int32], sizes: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Distinct cells [K, 2] of the outlines' points [2, turns, N] in boxes of `sizes` [2, turns, charts],
    turn by turn of each chart, and the first of each turn."""
    wide, high = (size.T.ravel().astype(np.int64) for size in sizes)  # [charts * turns]
    base = np.cumsum(wide * high) - wide * high
    turns = cell.shape[1]
    boxes = int(base[-1] + wide[-1] * high[-1])

    def keys(turn: int) -> Ints:
        item = outline.owner * turns + turn
        found: Ints = base[item] + cell[1, turn] * wide[item] + cell[0, turn]
        return found

    if boxes <= _MOST_BOXES:
        filled = np.zeros(boxes, bool)
        for turn in range(turns):
            filled[keys(turn)] = True
        found = np.flatnonzero(filled)
    else:  # many thin slanted charts
        found = np.unique(np.concatenate([keys(turn) for turn in range(turns)]))
    first = np.append(np.searchsorted(found, base), len(found))
    counts = np.diff(first)
    item = np.repeat(np.arange(len(base)), counts)
    # Far apart ones first: most places are found taken after a look or two.
    place = (np.arange(len(found)) - first[item]) * _long_steps(counts)[item] % counts[item]
    found = found[first[item] + place] - base[item]
    row = found // wide[item]
    border = np.stack([found - row * wide[item], row], axis=1)
    return border.astype(np.int32), first.astype(np.int32)


def _long_steps(counts: Ints) -> Ints:
    """Of each count, a number without a common divisor: its multiples come to all places, and neighbours lie
    far apart."""
    steps = np.maximum((0.618 * counts).astype(np.int64), 1)
    while (shared := np.gcd(steps, counts) > 1).any():
        steps += shared
    return steps
