"""Packing flat charts into a square atlas: a skyline of columns, each chart dropped where it wastes least.

Source for the horizon: Levy, Petitjean, Ray, Maillot, "Least Squares Conformal Maps" (SIGGRAPH 2002),
section 4. Ours tries eight turns a chart, scores the area lost underneath, and searches for the
largest common scale. Only the charts' outlines go to the CPU for that, and their places come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .charts import principal_angles
from .flatten import FlatCharts, chart_boxes, signed_areas
from .groups import group_sizes, marked, runs, sorting, unrolled
from .vectors import length, take

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TURNS = 8
_MANY_CHARTS = 200  # from here on quarter turns do; small charts fill the gaps anyway
_SHRINK_LIMIT = 80
_ATTEMPTS = 6
_FIRST_FILL = 0.66


@dataclass(frozen=True)
class Packing:
    """`uvs` [2, W] in [0, 1]; `utilisation` is the charts' area over the atlas' (1)."""

    uvs: Tensor
    utilisation: float


@dataclass(frozen=True)
class _Silhouette:
    """Per column, the lowest and highest cell of a chart, with one cell of gap on the right and on top."""

    bottom: NDArray[np.int32]
    top: NDArray[np.int32]

    @cached_property
    def height(self) -> int:
        return int(self.top.max())

    @cached_property
    def area_below(self) -> int:
        return int(self.bottom.sum())


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


def pack_charts(flat: FlatCharts, cells: int = 512) -> Packing:
    """Place charts in the unit square at one common scale, at least 1/cells apart.

    Texels are isotropic and of equal size on every chart; charts are turned, never mirrored.
    """
    charts = len(flat.valid)
    upright = _upright(flat.plane, flat.owner, charts)
    longest = float(upright.max())
    area = float(signed_areas(flat.plane, flat.faces).abs().sum())
    full = cells / max(area, 1e-30) ** 0.5  # the scale at which the charts' area is the atlas'
    limit = min((cells - 3) / max(longest, 1e-30), full)  # the longest chart must fit
    outline = _outline(upright, flat, spacing=0.25 / limit)

    scale = min(limit, full * float(np.sqrt(_FIRST_FILL)))
    fitting, too_large = 0.0, np.inf
    turns, corners = np.zeros(charts, dtype=np.int64), np.zeros((2, charts))
    for attempt in range(_SHRINK_LIMIT):
        tried_turns, tried_corners, height = _drop(outline, scale, cells)
        if height <= cells:
            fitting, turns, corners = scale, tried_turns, tried_corners
        else:
            too_large = scale
        if fitting and (attempt >= _ATTEMPTS or scale >= limit or too_large < 1.015 * fitting):
            break
        if np.isinf(too_large):
            scale = min(limit, 1.05 * fitting)
        elif not fitting:
            scale *= min(float(np.sqrt(cells / height)), 0.97)
        else:
            scale = float(np.sqrt(fitting * too_large))
    angle = torch.from_numpy(turns * (2 * np.pi / TURNS)).to(upright.device)
    turned = _turn(upright * fitting, angle, flat.owner)
    shift = torch.from_numpy(corners).to(upright.device) - chart_boxes(turned, flat.owner, charts)[0] + 0.5
    uvs = (turned + take(shift, flat.owner)) / cells
    return Packing(uvs.clamp_(0.0, 1.0), area * fitting**2 / cells**2)


def _upright(plane: Tensor, owner: Tensor, charts: int) -> Tensor:
    """Turn each chart so that its principal axis is vertical, the lower-left of its box at the origin."""
    offset, angle = principal_angles(plane, owner, charts)
    turned = _turn(offset, np.pi / 2 - angle, owner)
    return turned - take(chart_boxes(turned, owner, charts)[0], owner)


def _turn(points: Tensor, angle: Tensor, owner: Tensor) -> Tensor:
    """Turn points [2, N] by the angle [charts] (radians, counter-clockwise) of their chart."""
    (x, y), (cosine, sine) = points, take(torch.stack([angle.cos(), angle.sin()]), owner)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y])


def _outline(plane: Tensor, flat: FlatCharts, spacing: float) -> _Outline:
    """Points along the borders of all charts, chart by chart; the rest lies between them."""
    starts, ends = flat.faces.reshape(-1), flat.faces.roll(-1, dims=0).reshape(-1)
    keys = torch.minimum(starts, ends) * plane.shape[1] + torch.maximum(starts, ends)
    order = sorting(keys)
    opens = marked(runs(keys.index_select(0, order)))
    counts = torch.diff(opens, append=opens.new_tensor([len(order)]))
    edges = order.index_select(0, opens)
    chart = flat.owner.index_select(0, starts.index_select(0, edges))
    single = counts != 2
    bounded = torch.zeros_like(flat.valid).index_fill_(0, chart.index_select(0, marked(single)), True)
    border = marked(single | ~bounded.index_select(0, chart))  # all edges of a chart that is folded shut
    edges, chart = edges.index_select(0, border), chart.index_select(0, border)
    a, b = (take(plane, points.index_select(0, edges)) for points in (starts, ends))
    steps = (length(b - a) / max(spacing, 1e-30)).ceil().long() + 1
    edge, step = unrolled(steps)
    points = take(a, edge) + take(b - a, edge) * (step / steps.index_select(0, edge))
    owner = chart.index_select(0, edge)
    sizes = group_sizes(owner, len(flat.valid))
    return _Outline(take(points, sorting(owner)).cpu().numpy(), sizes.cpu().numpy())


def _silhouettes(outline: _Outline, scale: float, turn: int) -> list[_Silhouette]:
    """Each chart's cells after an eighth turn or several, counter-clockwise."""
    cosine, sine = (scale * f(turn * (2 * np.pi / TURNS)) for f in (np.cos, np.sin))
    (x, y), first = outline.points, outline.first
    column, row = (_cells(along, outline) for along in (cosine * x - sine * y, sine * x + cosine * y))
    width = np.maximum.reduceat(column, first) + 2
    ends = np.cumsum(width)
    place = column + (ends - width)[outline.owner]
    bottom = np.full(ends[-1], np.iinfo(np.int32).max, dtype=np.int32)
    top = np.zeros(ends[-1], dtype=np.int32)
    np.minimum.at(bottom, place, row)
    np.maximum.at(top, place, row + 2)
    # Each point also keeps the column to its right free; the last column of a chart holds no points.
    bottom[1:] = np.minimum(bottom[1:], bottom[:-1])
    top[1:] = np.maximum(top[1:], top[:-1])
    ends = ends[:-1]
    return [
        _Silhouette(low, high) for low, high in zip(np.split(bottom, ends), np.split(top, ends), strict=True)
    ]


def _cells(along: Floats, outline: _Outline) -> NDArray[np.int32]:
    """Whole cells from each chart's lowest point."""
    return (along - np.minimum.reduceat(along, outline.first)[outline.owner]).astype(np.int32)


def _drop(outline: _Outline, scale: float, cells: int) -> tuple[Ints, Floats, int]:
    """Turns [charts], lower-left corners [2, charts] in cells, and the height that the packing needs."""
    charts = len(outline.counts)
    tried = range(0, TURNS, 1 if charts < _MANY_CHARTS else 2)
    by_turn = {turn: _silhouettes(outline, scale, turn) for turn in tried}
    largest_first = np.argsort([-max(len(s.top), s.height) for s in by_turn[0]], kind="stable")
    skyline = np.zeros(cells, dtype=np.int32)  # 32 bits: twice the lanes
    turns = np.zeros(charts, dtype=np.int64)
    corners = np.zeros((2, charts))
    for chart in largest_first:
        filled = np.concatenate([[0], np.cumsum(skyline)])
        best: tuple[float, int, int, int] | None = None
        for turn in tried:
            shape = by_turn[turn][chart]
            width = len(shape.top)
            if width > cells:
                continue
            windows = np.ndarray((width, cells + 1 - width), np.int32, skyline, strides=2 * skyline.strides)
            rest = (windows - shape.bottom[:, None]).max(axis=0)  # [places]
            # Area lost below, in cells of height over the chart's width, weighed with how high it reaches.
            below = filled[width:] - filled[:-width] - shape.area_below
            score = 2 * rest - below / width + shape.height
            place = int(score.argmin())
            if best is None or score[place] < best[0]:
                best = (float(score[place]), turn, place, int(rest[place]))
        if best is None:
            return turns, corners, 2 * cells
        _, turn, place, rest_at = best
        shape = by_turn[turn][chart]
        skyline[place : place + len(shape.top)] = shape.top + rest_at
        turns[chart], corners[:, chart] = turn, (place, rest_at)
    return turns, corners, int(skyline.max())
