"""Which lattice points of an isosurface's band can be reached from outside the grid."""

from __future__ import annotations

import torch

from ..arrays.graph import connected_labels
from ..arrays.groups import nonzero_1d
from ..spatial.band import Band, find

DIRECTIONS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def outside_corners(band: Band, resolution: int) -> torch.Tensor:
    """Bool [C] for `band.corner_keys`: non-negative and connected to the outside of the grid.

    One graph holds all that is not solid: the empty cells of the grid that was refined last (node 0 is the
    run around everything) and the non-negative lattice points of the finest, both as runs along z. What
    shares node 0's component can be reached. The grid takes 7 bytes a cell: 120 MB at resolution 512, 1 GB at
    1024.
    """
    cells, pairs = _empty_runs(band)
    empty_runs = int(cells.max()) + 1
    positive = (band.values >= 0).nonzero()[:, 0]
    runs, touching = _runs(band.corner_keys[positive], resolution + 1)
    runs = runs + empty_runs
    node_of_point = torch.full((len(band.values),), -1, dtype=torch.int64, device=runs.device)
    node_of_point[positive] = runs
    pairs += [runs[pair] for pair in touching]
    pairs.append(_points_and_cells(band, cells, node_of_point))
    pairs.append(_rim(band.corner_keys[positive], runs, resolution + 1))
    count = empty_runs if len(runs) == 0 else int(runs[-1]) + 1
    labels = connected_labels(count, torch.cat(pairs))
    outside = torch.zeros(len(band.values), dtype=torch.bool, device=runs.device)
    outside[positive] = (labels == 0)[runs]
    return outside


def _empty_runs(band: Band) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run along z of each cell of the refined grid, with a border of one cell around: int32, -1 where refined
    or solid; and pairs [*, 2] of runs that lie side by side.

    Runs go on from row to row and from slice to slice: what meets there is the border, which is all one.
    """
    device, level = band.parents.device, band.solid[-1][0]
    filled = torch.zeros((band.solid[0][0],) * 3, dtype=torch.bool, device=device)
    for size, cells in band.solid:
        if size != len(filled):
            filled = filled.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
        filled[cells.long().unbind(dim=1)] = True
    filled[band.parents.long().unbind(dim=1)] = True
    side = level + 2
    empty = torch.ones((side,) * 3, dtype=torch.bool, device=device)
    empty[1:-1, 1:-1, 1:-1] = ~filled
    empty = empty.reshape(-1)
    begins = empty.clone()
    begins[1:] &= ~empty[:-1]
    runs = begins.cumsum(0, dtype=torch.int32).sub_(1)
    pairs = []
    for step in (side, side * side):
        # Where two runs come to lie side by side, one of them begins.
        here = nonzero_1d(empty[:-step] & empty[step:] & (begins[:-step] | begins[step:]))
        pairs.append(torch.stack([runs[here], runs[here + step]], dim=1).long())
    return runs.masked_fill_(~empty, -1).reshape(side, side, side), pairs


def _runs(keys: torch.Tensor, size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Number lattice points [P] by run along z (neighbours share a number), and list pairs [*, 2] of points
    that lie next to each other along x or y, one for each stretch of two runs."""
    fresh = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    fresh[1:] = (keys[1:] != keys[:-1] + 1) | (keys[1:] % size == 0)
    runs = fresh.cumsum(0) - 1
    pairs = []
    y = torch.div(keys, size, rounding_mode="floor") % size
    for step in (size, size * size):
        here = (y < size - 1).nonzero()[:, 0] if step == size else torch.arange(len(keys), device=keys.device)
        there = find(keys, keys[here] + step)
        here, there = here[there >= 0], there[there >= 0]
        new = torch.ones(len(here), dtype=torch.bool, device=keys.device)
        new[1:] = (runs[here[1:]] != runs[here[:-1]]) | (runs[there[1:]] != runs[there[:-1]])
        pairs.append(torch.stack([here[new], there[new]], dim=1))
    return runs, pairs


def _points_and_cells(band: Band, cells: torch.Tensor, node_of_point: torch.Tensor) -> torch.Tensor:
    """Pairs (point node, run of cells): a refined cell's face towards an empty cell is positive all over, so
    that one of its points stands for it."""
    pairs = []
    first, last = band.parent_points[0], band.parent_points[-1]  # the minimum and the maximum corner
    padded = band.parents + 1
    for direction in DIRECTIONS:
        x, y, z = (padded + torch.tensor(direction, device=padded.device)).unbind(dim=1)
        run = cells[x, y, z].long()
        point = node_of_point[first if sum(direction) < 0 else last]
        # A point on the grid's border may be solid; those next to empty cells inside the grid are not.
        touching = (run >= 0) & (point >= 0)
        pairs.append(torch.stack([point[touching], run[touching]], dim=1))
    return torch.cat(pairs)


def _rim(keys: torch.Tensor, runs: torch.Tensor, size: int) -> torch.Tensor:
    """Pairs (point node, outside) for the points on the grid's border."""
    xy = torch.div(keys, size, rounding_mode="floor")
    place = torch.stack([torch.div(xy, size, rounding_mode="floor"), xy % size, keys % size])
    rim = runs[((place == 0) | (place == size - 1)).any(dim=0)]
    return torch.stack([rim, torch.zeros_like(rim)], dim=1)
