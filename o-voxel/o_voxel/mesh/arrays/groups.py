"""Sums, extremes and orders of values that belong to numbered groups, on the values' device.

What torch has for these on one or two processors is several times slower than NumPy (sorting and taking
what a mask marks, above all), so on the CPU the same arrays go through NumPy. There every result is the
same each time; on a GPU sums add up in any order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LANES = 32


def group_sums(group: Tensor, values: Tensor, count: int) -> Tensor:
    """Sums [count] of values [N] float64 by their group [N]."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.bincount(group.numpy(), values.numpy(), count))
    return scattered_sums(group, values, count)


def group_sizes(group: Tensor, count: int) -> Tensor:
    """Members [count] int64 of each group."""
    if group.device.type == "cpu":
        return torch.from_numpy(np.bincount(group.numpy(), minlength=count))
    return scattered_sums(group, torch.ones_like(group), count)


def group_lowest(group: Tensor, values: Tensor, start: Tensor) -> Tensor:
    """The lowest [K] of each group's values [N] and of what it starts from, `start` [K]."""
    if values.device.type == "cpu":
        lowest = start.numpy().copy()
        np.minimum.at(lowest, group.numpy(), values.numpy())
        return torch.from_numpy(lowest)
    return scattered_lowest(group, values, start)


def smallest_members(group: Tensor, count: int) -> Tensor:
    """For each of [N], the smallest index that shares its group [N], one of 0..count-1."""
    index = torch.arange(len(group), device=group.device)
    return group_lowest(group, index, index.new_full((count,), len(group))).index_select(0, group)


def expand_counts(counts: Tensor) -> tuple[Tensor, Tensor]:
    """As many entries as counts [N] add up to, in order: whose each is, and its place among those."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    before = (counts.cumsum(0) - counts).index_select(0, owner)
    return owner, torch.arange(len(owner), device=owner.device) - before


def scattered_sums(group: Tensor, values: Tensor, count: int) -> Tensor:
    """`group_sums` by atomic additions, of any dtype."""
    place, places = _places(group, count)
    sums = values.new_zeros(count * places).index_add_(0, place, values)
    return sums if places == 1 else sums.reshape(count, places).sum(dim=1)


def scattered_lowest(group: Tensor, values: Tensor, start: Tensor) -> Tensor:
    """`group_lowest` by atomic minima."""
    place, places = _places(group, len(start))
    if places == 1:
        return start.scatter_reduce(0, place, values, "amin")
    lowest = start[:, None].repeat(1, places).reshape(-1).scatter_reduce_(0, place, values, "amin")
    return lowest.reshape(len(start), places).amin(dim=1)


def _places(group: Tensor, count: int) -> tuple[Tensor, int]:
    """Where each member adds up and how many places a group has.

    Members of few large groups take their group's places in turn, so that the lanes of a GPU do not queue for
    one address.
    """
    if len(group) < _LANES * _LANES * count or not count:
        return group, 1
    return group * _LANES + torch.arange(len(group), device=group.device) % _LANES, _LANES


def nonzero_1d(mask: Tensor) -> Tensor:
    """Indices [M] int64 of what a mask [N] marks."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def argsort_deterministic(keys: Tensor) -> Tensor:
    """A permutation [N] that sorts the keys; equal keys in no certain, but the same order each time."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.argsort(keys.numpy()))
    return torch.argsort(keys, stable=True)


def run_starts(keys: Tensor) -> Tensor:
    """Whether each of some sorted keys [N] is the first of its kind."""
    first = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    first[1:] = keys[1:] != keys[:-1]
    return first


def rank_of_true(used: Tensor) -> tuple[Tensor, int]:
    """New numbers [N] for those that are used [N], in their order from 0, and how many there are."""
    rank = used.cumsum(0) - 1
    return rank, int(rank[-1]) + 1 if len(rank) else 0
