"""Packing flat charts into a square atlas: a skyline of columns, each chart dropped where it wastes least.

Source for the horizon: Levy, Petitjean, Ray, Maillot, "Least Squares Conformal Maps" (SIGGRAPH 2002),
section 4. Ours tries eight turns a chart, scores the area lost underneath, and searches for the
largest common scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .charts import Floats, Ints
from .flatten import signed_areas

TURNS = 8
_MANY_CHARTS = 200  # from here on quarter turns do; small charts fill the gaps anyway
_SHRINK_LIMIT = 80
_ATTEMPTS = 6
_FIRST_FILL = 0.66


@dataclass(frozen=True)
class Packing:
    """`uvs` [W, 2] in [0, 1]; `utilisation` is the charts' area over the atlas' (1)."""

    uvs: Floats
    utilisation: float


@dataclass(frozen=True)
class _Silhouette:
    """Per column, the lowest and highest cell of a chart, with one cell of gap on the right and on top."""

    bottom: NDArray[np.int32]
    top: NDArray[np.int32]

    @cached_property
    def height(self) -> int:
        return int(self.top.max())


def pack_charts(plane: Floats, faces: Ints, labels: Ints, cells: int = 512) -> Packing:
    """Place charts (labels [F]; plane [W, 2]) in the unit square at one common scale, at least 1/cells apart.

    Texels are isotropic and of equal size on every chart; charts are turned, never mirrored.
    """
    charts = int(labels.max()) + 1
    owner = np.zeros(len(plane), dtype=np.int64)
    owner[faces] = labels[:, None]
    upright = _upright(plane, owner, charts)
    outline, outline_owner = _outline(upright, faces, owner, spacing=float(upright.max()) / (2 * cells))
    area = float(np.abs(signed_areas(plane, faces)).sum())
    limit = (cells - 3) / max(float(upright.max()), 1e-30)  # the longest chart must fit

    scale = min(limit, cells * float(np.sqrt(_FIRST_FILL / max(area, 1e-30))))
    fitting, too_large = 0.0, np.inf
    turns, corners = np.zeros(charts, dtype=np.int64), np.zeros((charts, 2))
    for attempt in range(_SHRINK_LIMIT):
        tried_turns, tried_corners, height = _drop(outline * scale, outline_owner, charts, cells)
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
    turned = _turn(upright * fitting, turns[owner])
    low = _lowest(turned, owner, charts)
    uvs = (turned - low[owner] + corners[owner] + 0.5) / cells
    return Packing(np.clip(uvs, 0.0, 1.0), area * fitting**2 / cells**2)


def _upright(plane: Floats, owner: Ints, charts: int) -> Floats:
    """Turn each chart so that its principal axis is vertical, the lower-left of its box at the origin."""
    count = np.maximum(np.bincount(owner, minlength=charts), 1)
    centre = np.stack([np.bincount(owner, plane[:, k], charts) / count for k in range(2)], axis=1)
    x, y = (plane - centre[owner]).T
    xx, yy, xy = (np.bincount(owner, value, charts) for value in (x * x, y * y, x * y))
    angle = (np.pi / 2 - 0.5 * np.arctan2(2 * xy, xx - yy))[owner]
    turned = np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=1)
    return turned - _lowest(turned, owner, charts)[owner]


def _lowest(points: Floats, owner: Ints, charts: int) -> Floats:
    low = np.full((charts, 2), np.inf)
    np.minimum.at(low, owner, points)
    return low


def _turn(points: Floats, turns: Ints) -> Floats:
    """Eighth turns counter-clockwise about the origin."""
    x, y = points.T
    angle = turns * (2 * np.pi / TURNS)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


def _outline(plane: Floats, faces: Ints, owner: Ints, spacing: float) -> tuple[Floats, Ints]:
    """Points along the borders of all charts and the chart of each; the rest lies between them."""
    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    keys = np.minimum(starts, ends) * len(plane) + np.maximum(starts, ends)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    chart = owner[starts[first]]
    bounded = np.zeros(len(plane), dtype=bool)
    bounded[chart[counts != 2]] = True
    border = first[(counts != 2) | ~bounded[chart]]  # all edges of a chart that is folded shut
    a, b = plane[starts[border]], plane[ends[border]]
    steps = np.ceil(np.linalg.norm(b - a, axis=1) / max(spacing, 1e-30)).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(border)), steps)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps) - steps, steps)
    t = (step / steps[edge])[:, None]
    return a[edge] * (1 - t) + b[edge] * t, owner[starts[border]][edge]


def _silhouettes(points: Floats, owner: Ints, charts: int) -> list[_Silhouette]:
    cells = np.floor(points - _lowest(points, owner, charts)[owner]).astype(np.int32)
    width = np.zeros(charts, dtype=np.int64)
    np.maximum.at(width, owner, cells[:, 0] + 2)
    start = np.concatenate([[0], np.cumsum(width)])
    place = start[owner] + cells[:, 0]
    bottom = np.full(start[-1], np.iinfo(np.int32).max, dtype=np.int32)
    top = np.zeros(start[-1], dtype=np.int32)
    for column in (place, place + 1):  # each point also keeps the column to its right free
        np.minimum.at(bottom, column, cells[:, 1])
        np.maximum.at(top, column, cells[:, 1] + 1)
    ends = start[1:-1]
    return [
        _Silhouette(low, high) for low, high in zip(np.split(bottom, ends), np.split(top, ends), strict=True)
    ]


def _drop(outline: Floats, owner: Ints, charts: int, cells: int) -> tuple[Ints, Floats, int]:
    """Turns [charts], lower-left corners [charts, 2] in cells, and the height that the packing needs."""
    tried = range(0, TURNS, 1 if charts < _MANY_CHARTS else 2)
    every = np.ones(len(outline), dtype=np.int64)
    by_turn = {turn: _silhouettes(_turn(outline, turn * every), owner, charts) for turn in tried}
    largest_first = np.argsort([-max(len(s.top), s.height) for s in by_turn[0]], kind="stable")
    skyline = np.zeros(cells, dtype=np.int32)  # 32 bits: twice the lanes
    turns = np.zeros(charts, dtype=np.int64)
    corners = np.zeros((charts, 2))
    for chart in largest_first:
        best: tuple[float, int, int, int] | None = None
        for turn in tried:
            shape = by_turn[turn][chart]
            width = len(shape.top)
            if width > cells:
                continue
            gaps = sliding_window_view(skyline, width) - shape.bottom  # [places, width]
            rest = gaps.max(axis=1)
            # Area lost below, in cells of height over the chart's width, weighed with how high it reaches.
            score = 2 * rest - gaps.sum(axis=1) / width + shape.height
            place = int(score.argmin())
            if best is None or score[place] < best[0]:
                best = (float(score[place]), turn, place, int(rest[place]))
        if best is None:
            return turns, corners, 2 * cells
        _, turn, place, rest_at = best
        shape = by_turn[turn][chart]
        skyline[place : place + len(shape.top)] = shape.top + rest_at
        turns[chart], corners[chart] = turn, (place, rest_at)
    return turns, corners, int(skyline.max())
