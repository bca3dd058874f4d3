"""Which lattice points of an isosurface's band can be reached from outside the grid."""

from __future__ import annotations

import torch

from .components import label_graph
from .isosurface import Band, find, keys_of

DIRECTIONS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


def outside_corners(band: Band, resolution: int) -> torch.Tensor:
    """Bool [C] for `band.corner_keys`: non-negative and connected to the outside of the grid.

    One graph holds everything that is not solid: the outside (node 0), the empty cells of every level, and
    the non-negative lattice points of the finest. Neighbours in space are joined; what shares node 0's
    component can be reached.
    """
    graph = _Graph(band)
    for depth in range(len(band.free)):
        graph.join_cells(depth)
    graph.join_points(resolution)
    graph.join_points_to_cells()
    labels = label_graph(graph.count, torch.cat(graph.pairs))
    outside = torch.zeros(len(band.corner_keys), dtype=torch.bool, device=band.corner_keys.device)
    outside[graph.positive] = (labels == 0)[graph.runs]
    return outside


class _Graph:
    """Node numbers: 0 outside, then the free cells level by level, then runs of lattice points along z."""

    def __init__(self, band: Band) -> None:
        self.band = band
        device = band.corner_keys.device
        self.levels: list[tuple[int, torch.Tensor, torch.Tensor, int]] = []  # level, cells, keys, first node
        self.count = 1
        for level, cells in band.free:
            keys = keys_of(cells, level)
            order = keys.argsort()
            self.levels.append((level, cells[order], keys[order], self.count))
            self.count += len(cells)
        self.pairs: list[torch.Tensor] = []
        self.positive = (band.values >= 0).nonzero()[:, 0]  # [P] rows of corner_keys
        self.runs = torch.zeros(0, dtype=torch.int64, device=device)

    def join(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.pairs.append(torch.stack([a, b], dim=1))

    def node_of_cell(self, depth: int, cells: torch.Tensor) -> torch.Tensor:
        """Node of each cell [M, 3] of level `depth`: 0 off the grid, its free ancestor's, or -1 when refined."""
        level = self.levels[depth][0]
        off_grid = ((cells < 0) | (cells >= level)).any(dim=1)
        node = torch.where(off_grid, 0, -1)
        for k in range(depth, -1, -1):
            level, _, keys, first = self.levels[k]
            open_ = (node < 0).nonzero()[:, 0]
            if len(open_) == 0:
                break
            found = find(keys, keys_of(cells[open_], level))
            node[open_] = torch.where(found >= 0, found + first, -1)
            cells = torch.div(cells, 2, rounding_mode="floor")
        return node

    def join_cells(self, depth: int) -> None:
        """Free cells with free neighbours of the same or a coarser level, and with the outside."""
        _, cells, _, first = self.levels[depth]
        here = torch.arange(len(cells), device=cells.device) + first
        for direction in DIRECTIONS:
            other = self.node_of_cell(depth, cells + torch.tensor(direction, device=cells.device))
            touching = other >= 0
            self.join(here[touching], other[touching])

    def join_points(self, resolution: int) -> None:
        """Lattice points with each other; those next to each other along z share a node from the start."""
        size = resolution + 1
        keys = self.band.corner_keys[self.positive]
        z = keys % size
        fresh = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
        fresh[1:] = (keys[1:] != keys[:-1] + 1) | (z[1:] == 0)
        self.runs = fresh.cumsum(0) - 1 + self.count
        self.count += int(fresh.sum())
        y = torch.div(keys, size, rounding_mode="floor") % size
        for step, last in ((size, y == size - 1), (size * size, None)):
            other = find(keys, keys + step)
            touching = other >= 0 if last is None else (other >= 0) & ~last
            a, b = self.runs[touching], self.runs[other[touching]]
            new = torch.ones(len(a), dtype=torch.bool, device=a.device)
            new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
            self.join(a[new], b[new])
        x = torch.div(keys, size * size, rounding_mode="floor")
        rim = ((torch.stack([x, y, z]) == 0) | (torch.stack([x, y, z]) == size - 1)).any(dim=0)
        self.join(self.runs[rim], torch.zeros_like(self.runs[rim]))

    def join_points_to_cells(self) -> None:
        """A refined cell's face towards an empty cell is positive all over; one of its points stands for it."""
        parents, points = self.band.parents, self.band.parent_points
        node_of_point = torch.full((len(self.band.values),), -1, dtype=torch.int64, device=parents.device)
        node_of_point[self.positive] = self.runs
        first, last = points[0], points[-1]  # the minimum and the maximum corner
        for direction in DIRECTIONS:
            other = self.node_of_cell(len(self.levels) - 1, parents + torch.tensor(direction).to(parents))
            point = node_of_point[first if sum(direction) < 0 else last]
            # A point on the grid's border may be solid; empty cells inside the grid have none.
            touching = (other >= 0) & (point >= 0)
            self.join(point[touching], other[touching])
