"""Which empty space around a mesh is outside of it and which inside, where the mesh has slits and holes.

A ball as wide as the gap to close comes in from afar: what it reaches is outside, other rooms that hold it
are inside. The narrower space between goes to whichever comes to it over the wider
passage (a watershed of the clearance: Beucher, Lantuejoul, "Use of watersheds in contour detection", 1979),
so that outside and inside meet where an opening is narrowest. Where hardly any sky is seen from a room, its
opening is one that the decoder left, however wide; and the outside does not grow out of sight into gaps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ... import kernels
from ..arrays.graph import connected_labels
from ..arrays.groups import nonzero_1d
from ..spatial.lattice import Band, dilated
from .sky import DIRECTIONS, in_reach, sky

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

HARDLY = 0.015
"""Share of the directions, over a room's core, that lead to the sky, below which it is a hollow body."""

COARSE = 3
"""Steps of the coarser lattice on which rooms are looked for that are wider than the ball."""

WIDEST = 0.25
"""Of the longest side: half the width of the widest room looked for."""

SEEN = 0.02
"""Share of a room's walls that let light through, from which it counts as outside."""


def spaces(band: Band, radius: float, least: float, see_through: Tensor | None = None) -> tuple[Band, Tensor]:
    """Label [P] uint8 of the band's points: OUTSIDE, INSIDE, or 0 where the surface is within `least` steps
    or no ball of `radius` steps comes near; and the band, with points where openings wider than it close.
    `see_through` [F] bool: faces through which light comes."""
    shape = band.lattice.shape
    roomy = _clear(band, radius)
    hollow, clear, visible = torch.zeros_like(roomy), _clear(band, least).view(shape), None
    if see_through is None:
        light = sky(clear)
        hollow = hollow_rooms(clear, radius).reshape(-1)
        hidden = roomy & ~hollow & (light == 0).view(-1)
        if bool(hollow.any()) and bool(hidden.any()):
            hollow |= _joined(hidden, hollow, shape)  # what the boxes leave at the walls
        band = band.widened(_rim(hollow.view(shape)))
    space = connected_spaces(roomy & ~hollow, shape)
    sizes = torch.bincount(space[space >= 0])
    is_open = sizes < ROOM * (4 / 3 * math.pi * radius**3) / 8
    is_open[_beside(hollow, space, shape)] = False
    is_open[0] = True
    rim = space[band.keys.long()]
    if see_through is not None:
        is_open |= _seen_through(band, rim, see_through, len(sizes))
    label = torch.where(is_open[rim.clamp(min=0)], OUTSIDE, INSIDE).to(torch.uint8)
    label[rim < 0] = 0
    label[(roomy & hollow)[band.keys.long()]] = INSIDE
    if see_through is None:
        outdoors = (space == 0).view(shape)
        visible = in_reach(clear, (light > 0) | outdoors, math.ceil(radius)).view(-1)[band.keys.long()]
    narrow = band.distance <= radius
    widest = radius
    while widest > least:
        narrower = max(NARROWER * widest, least)
        label = grown(band, label, widest, narrower)
        if visible is not None:
            label[(label == OUTSIDE) & narrow & ~visible] = 0
            # with these, smaller rooms that nothing wide enough leads to
            label[(label == 0) & (band.distance > narrower)] = INSIDE
        widest = narrower
    if see_through is None:
        label[(label == OUTSIDE) & ~_reached(band, label == OUTSIDE)] = INSIDE
    return band, label


def _rim(mask: Tensor) -> Tensor:
    """Points [X * Y * Z] within two steps of both kinds of a mask [X, Y, Z]."""
    return (dilated(mask.clone(), 2) & dilated(~mask, 2)).view(-1)


def _reached(band: Band, outside: Tensor) -> Tensor:
    """Which of the band's points [P] are joined to the outside of the lattice by those marked [P]."""
    empty = torch.ones(len(band.rows), dtype=torch.bool, device=band.rows.device)
    empty[band.keys[~outside].long()] = False
    return connected_spaces(empty, band.lattice.shape)[band.keys.long()] == 0


def _clear(band: Band, distance: float) -> Tensor:
    """Lattice points [X * Y * Z] bool farther than `distance` steps from the surface."""
    clear = torch.ones(len(band.rows), dtype=torch.bool, device=band.rows.device)
    clear[band.keys[band.distance <= distance].long()] = False
    return clear


def _beside(mask: Tensor, space: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Numbers of the spaces [X * Y * Z] that neighbours of the `mask` [X * Y * Z] lie in."""
    _, ny, nz = shape
    found = [space[:0]]
    for step in (1, nz, ny * nz):
        found += [space[:-step][mask[step:]], space[step:][mask[:-step]]]
    numbers = torch.unique(torch.cat(found))
    return numbers[numbers >= 0]


def _joined(points: Tensor, mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Those of `points` [X * Y * Z] bool, at least one, that a path through them joins to the `mask`."""
    space = connected_spaces(points, shape)
    numbers = _beside(mask, space, shape)
    chosen = torch.zeros(int(space.max()) + 2, dtype=torch.bool, device=space.device)
    chosen[numbers] = True
    return chosen[space]  # -1 is the last, which is never chosen


def hollow_rooms(clear: Tensor, radius: float) -> Tensor:
    """The part [X, Y, Z] bool of `clear` space [X, Y, Z] in rooms from which hardly any sky is seen, although
    a ball of `radius` steps comes in: a box that fits into them is wider than their openings.

    Boxes of every size up to WIDEST are tried, on a lattice of COARSE steps. A room is judged as a whole, by
    the smallest box that cannot leave it.
    """
    blocked = torch.nn.functional.max_pool3d((~clear)[None, None].float(), COARSE, ceil_mode=True)[0, 0] > 0
    widest = math.ceil(WIDEST * max(blocked.shape))
    room = widest + 1
    blocked = torch.nn.functional.pad(blocked, (room,) * 6)
    light = sky(~blocked).view(-1).float() / len(DIRECTIONS)
    found = torch.zeros_like(blocked)
    judged = torch.zeros_like(blocked).view(-1)
    nx, ny, nz = blocked.shape
    half = int(radius / COARSE) + 1
    while half <= widest:
        space = connected_spaces(~dilated(blocked.clone(), half).view(-1), (nx, ny, nz))
        core = nonzero_1d(space > 0)
        if len(core):
            number = space[core]
            count = torch.bincount(number)
            known = torch.bincount(number, judged[core].float()) > 0  # parts of rooms that were looked at
            dark = (torch.bincount(number, light[core]) < HARDLY * count) & ~known
            judged[core] = True
            centres = torch.zeros_like(judged)
            centres[core[dark[number]]] = True
            found |= dilated(centres.view(blocked.shape), half)
        half = max(half + 1, int(1.25 * half))
    found = found[(slice(room, -room),) * 3]
    for axis, length in enumerate(clear.shape):
        found = found.repeat_interleave(COARSE, axis).narrow(axis, 0, length)
    return found & clear


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
