"""The cells that a surface passes through, and the integer keys of lattice points.

Keys number lattice points or cells in (x, y, z) order, so that sorted keys are lexicographic coordinates;
they are int32 where that suffices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Band:
    """What refinement found at the last level, R cells along an axis."""

    corner_keys: torch.Tensor  # [C] int64 sorted, lattice of (R + 1)^3 points
    values: torch.Tensor  # [C] field at the corners
    cells: torch.Tensor  # [N, 3] int64, lexicographic: cells whose corners differ in sign
    corners: torch.Tensor  # [N, 8] int64 rows of `corner_keys`
    solid: list[tuple[int, torch.Tensor]]  # per level: cells along an axis, [M, 3] cells wholly below zero
    parents: torch.Tensor  # [P, 3] the refined cells of the last of these levels
    parent_points: torch.Tensor  # [(s + 1)^3, P] rows of `corner_keys`, s = R / that level


def key_type(size: int) -> torch.dtype:
    """The integer type of keys in a grid of `size` points an axis."""
    return torch.int32 if size**3 < 2**31 else torch.int64


def keys_of(coords: torch.Tensor, size: int) -> torch.Tensor:
    """Keys [N] of coords [N, 3] in a grid of `size` points an axis."""
    return (coords[:, 0] * size + coords[:, 1]) * size + coords[:, 2]


def coords_of(keys: torch.Tensor, size: int) -> torch.Tensor:
    """Inverse of `keys_of`: [N, 3]."""
    xy = torch.div(keys, size, rounding_mode="floor")
    x = torch.div(xy, size, rounding_mode="floor")
    return torch.stack([x, xy - x * size, keys - xy * size], dim=1)


def find(sorted_keys: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Row of each key in `sorted_keys`, or -1; NumPy's search is several times faster on a CPU."""
    if len(sorted_keys) == 0:
        return torch.full_like(keys, -1)
    if keys.device.type == "cpu":
        rows = torch.from_numpy(np.searchsorted(sorted_keys.numpy(), keys.numpy()))
    else:
        rows = torch.searchsorted(sorted_keys, keys)
    rows = rows.clamp_(max=len(sorted_keys) - 1)
    return torch.where(sorted_keys[rows] == keys, rows, -1)


def unique_keys(keys: torch.Tensor) -> torch.Tensor:
    """Sorted distinct keys."""
    if keys.device.type != "cpu":
        return torch.unique(keys)
    ordered = np.sort(keys.numpy())
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.from_numpy(ordered[first])
