"""Objects that look the same from several sides: no picture tells their yaw."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import table as tb
from .distance import distance
from .table import Pattern

_TURNS = (120.0, 90.0, 72.0, 60.0, 51.43, 45.0)  # of three to eight sides; a body of revolution passes all
_POINTS = 256
_CHUNK = 512
_TOLERANCE = 0.0005  # mean change of the distance, in sides of the cube
_BESIDE = 0.04  # from the axis, in sides of the cube
_FRONTS = (Pattern.LABEL, Pattern.FACE, Pattern.LETTERS)


def turn_changes(tables: Tensor) -> Tensor:
    """How much each of the turns about the vertical axis changes a shape `[N, turns]`: the mean absolute
    change of its distance, cut at 0.1.
    """
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand((_POINTS, 3), generator=generator) - 0.5).to(tables.device)
    parts = []
    for some in tables.split(_CHUNK):
        before = _near(some, points)
        changes = []
        for degrees in _TURNS:
            cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            turn = points.new_tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
            changes.append((_near(some, points @ turn) - before).abs().mean(1))
        parts.append(torch.stack(changes, 1))
    return torch.cat(parts) if parts else tables.new_zeros(0, len(_TURNS))


def _near(tables: Tensor, points: Tensor) -> Tensor:
    return distance(tables, points.expand(len(tables), -1, -1))[0].clamp(-0.1, 0.1)


def is_symmetric(tables: Tensor) -> Tensor:
    """Whether no picture can tell an object's yaw, for tables `[N, K, ROW]` -> `[N]` bool.

    True where the family says that no side is the front, or where a turn of 120 degrees or less about the
    vertical axis leaves the shape nearly as it is; never where a label or a face, or a part beside the axis,
    such as an eye or a door, shows the front.
    """
    fronts = tables.new_tensor([float(p) for p in _FRONTS])
    front = torch.isin(tables[..., tb.PATTERN].round(), fronts).any(1)
    place = tables[..., tb.ORIGIN : tb.ORIGIN + 2] + tables[..., tb.TRANSLATION : tb.TRANSLATION + 2]
    alone = (tables[..., tb.RADIAL] == 0) & (tables[..., tb.MIRROR] < 3) & (tables[..., tb.KIND] >= 0)
    beside = (alone & (place.norm(dim=-1) > _BESIDE)).any(1)
    alike = (turn_changes(tables).amin(1) < _TOLERANCE) & ~beside
    return (alike | (tables[:, 0, tb.FRONTLESS] > 0)) & ~front
