"""Sums, extremes and orders of values that belong to numbered groups, on the values' device.

What torch has for these on one or two processors is several times slower than NumPy (sorting and taking
what a mask marks, above all), so on the CPU the same arrays go through NumPy. There every result is the
same each time; on a GPU sums add up in any order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def group_sums(group: Tensor, values: Tensor, count: int) -> Tensor:
    """Sums [count] of values [N] float64 by their group [N]."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.bincount(group.numpy(), values.numpy(), count))
    return values.new_zeros(count).index_add_(0, group, values)


def group_sizes(group: Tensor, count: int) -> Tensor:
    """Members [count] int64 of each group."""
    if group.device.type == "cpu":
        return torch.from_numpy(np.bincount(group.numpy(), minlength=count))
    return group.new_zeros(count).index_add_(0, group, torch.ones_like(group))


def group_lowest(group: Tensor, values: Tensor, start: Tensor) -> Tensor:
    """The lowest [K] of each group's values [N] and of what it starts from, `start` [K]."""
    if values.device.type == "cpu":
        lowest = start.numpy().copy()
        np.minimum.at(lowest, group.numpy(), values.numpy())
        return torch.from_numpy(lowest)
    return start.scatter_reduce(0, group, values, "amin")


def marked(mask: Tensor) -> Tensor:
    """Indices [M] int64 of what a mask [N] marks."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def sorting(keys: Tensor) -> Tensor:
    """A permutation [N] that sorts the keys; equal keys in no certain, but the same order each time."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.argsort(keys.numpy()))
    return torch.argsort(keys, stable=True)


def runs(keys: Tensor) -> Tensor:
    """Whether each of some sorted keys [N] is the first of its kind."""
    first = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    first[1:] = keys[1:] != keys[:-1]
    return first


def compact(used: Tensor) -> tuple[Tensor, int]:
    """New numbers [N] for those that are used [N], in their order from 0, and how many there are."""
    rank = used.cumsum(0) - 1
    return rank, int(rank[-1]) + 1 if len(rank) else 0
