"""Which empty space around a mesh is outside of it and which inside, where the mesh has slits and holes.

A ball as wide as the gap to close comes in from afar: what it reaches is outside, other rooms that hold it
are inside. The narrower space between goes to whichever comes to it over the wider
passage (a watershed of the clearance: Beucher, Lantuejoul, "Use of watersheds in contour detection", 1979),
so that outside and inside meet where an opening is narrowest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import kernels
from ..arrays.graph import connected_labels
from ..arrays.groups import nonzero_1d
from ..spatial.lattice import Band

OUTSIDE, INSIDE = 1, 2
"""Labels of empty space; 0 is on the surface, or not known."""

ROOM = 4.0
"""Volume of a room's core (where the ball's centre fits) over the ball's, from which it is a hollow body
rather than a cup, whose opening is as wide as itself."""

NARROWER = 0.75
"""From one ball to the next smaller one that looks for rooms of its own size."""

LEVELS = 0.25
"""Steps of clearance from one round of growth to the next."""

LONGEST = 400
"""Rounds after which growth along narrow passages ends."""

SEEN = 0.02
"""Share of a room's walls that let light through, from which it counts as outside."""


def spaces(band: Band, radius: float, least: float, see_through: Tensor | None = None) -> Tensor:
    """Label [P] uint8 of the band's points: OUTSIDE, INSIDE, or 0 where the surface is within `least` steps
    or no ball of `radius` steps comes near. `see_through` [F] bool: faces through which light comes."""
    roomy = torch.ones(len(band.rows), dtype=torch.bool, device=band.rows.device)
    roomy[band.keys[band.distance <= radius].long()] = False
    space = connected_spaces(roomy, band.lattice.shape)
    sizes = torch.bincount(space[space >= 0])
    is_open = sizes < ROOM * (4 / 3 * math.pi * radius**3) / 8
    is_open[0] = True
    rim = space[band.keys.long()]
    if see_through is not None:
        is_open |= _seen_through(band, rim, see_through, len(sizes))
    label = torch.where(is_open[rim.clamp(min=0)], OUTSIDE, INSIDE).to(torch.uint8)
    label[rim < 0] = 0
    widest = radius
    while widest > least:
        narrower = max(NARROWER * widest, least)
        label = grown(band, label, widest, narrower)
        if see_through is None:  # smaller rooms that nothing wide enough leads to
            label[(label == 0) & (band.distance > narrower)] = INSIDE
        widest = narrower
    return label


def _seen_through(band: Band, rim: Tensor, see_through: Tensor, count: int) -> Tensor:
    """Which of `count` spaces, given at the band's points `rim` [P], have walls that let light through."""
    here = nonzero_1d(rim >= 0)
    wall = torch.bincount(rim[here], minlength=count)
    clear = see_through[band.near[here].clamp(min=0).long()] & (band.near[here] >= 0)
    return torch.bincount(rim[here][clear], minlength=count) > SEEN * wall


def connected_spaces(empty: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Component [X * Y * Z] of each empty lattice point, -1 at others; 0 is the one around everything.

    The lattice's border must be empty: runs along z go on from row to row there.
    """
    _, ny, nz = shape
    begins = empty.clone()
    begins[1:] &= ~empty[:-1]
    run = begins.cumsum(0, dtype=torch.int32).sub_(1)
    pairs = []
    for step in (nz, ny * nz):
        # Where two runs come to lie side by side, one of them begins.
        here = nonzero_1d(empty[:-step] & empty[step:] & (begins[:-step] | begins[step:]))
        pairs.append(torch.stack([run[here], run[here + step]], dim=1).long())
    space = connected_labels(int(run[-1]) + 1, torch.cat(pairs))[run.long()]
    return space.masked_fill_(~empty, -1)


def grown(band: Band, label: Tensor, widest: float, least: float) -> Tensor:
    """Labels [P] of the band's points grown into unlabelled ones of a clearance above `least` steps.

    Wide passages, from `widest` steps down, go first; each point takes the label of its roomiest neighbour.
    """
    from ..spatial.lattice_kernels import grow_kernel

    _, ny, nz = band.lattice.shape
    label = label.clone()
    arrays = [band.keys, band.rows, ny, nz, band.distance, label]
    waiting = nonzero_1d((label == 0) & (band.distance > least)).int()
    level = widest
    for _ in range(LONGEST):
        level = max(least, level - LEVELS)
        taken = torch.empty(len(waiting), dtype=torch.uint8, device=label.device)
        kernels.launch(grow_kernel, len(waiting), [waiting, *arrays, level, taken], label.device)
        new = taken > 0
        if level == least and not bool(new.any()):
            break
        label[waiting[new].long()] = taken[new]
        waiting = waiting[~new]
    return label
