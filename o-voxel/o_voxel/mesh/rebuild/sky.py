"""Which empty space of a lattice the sky can be seen from: along 26 directions, past what is not empty."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ... import kernels

DIRECTIONS = [d for d in itertools.product((-1, 0, 1), repeat=3) if d != (0, 0, 0)]


def sky(empty: Tensor) -> Tensor:
    """How many [X, Y, Z] uint8 of DIRECTIONS lead from each point of `empty` [X, Y, Z] bool out of the
    lattice through empty points alone; 0 at others."""
    from .sky_kernels import sky_kernel

    count = torch.zeros(empty.shape, dtype=torch.uint8, device=empty.device)
    arrays = [kernels.as_warp(a) for a in (empty.view(torch.uint8).reshape(-1), count.view(-1))]
    for direction in DIRECTIONS:
        for axis in range(3):
            if direction[axis]:
                other, last = (n for i, n in enumerate(empty.shape) if i != axis)
                inputs = [axis, *direction, *empty.shape, *arrays]
                kernels.launch(sky_kernel, other * last, inputs, empty.device)
    return count


def in_reach(empty: Tensor, start: Tensor, reach: int) -> Tensor:
    """Points [X, Y, Z] bool of `empty` from which a walk of `reach` steps through it comes to `start`."""
    found = start & empty
    for _ in range(reach):
        before = found.clone()
        for axis in range(3):
            length = found.shape[axis] - 1
            found.narrow(axis, 1, length).logical_or_(before.narrow(axis, 0, length))
            found.narrow(axis, 0, length).logical_or_(before.narrow(axis, 1, length))
        found &= empty
    return found
