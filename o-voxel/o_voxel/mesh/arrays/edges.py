"""The edges of a triangle mesh and the faces at each, as arrays.

An edge is an unordered pair of different vertex indices; its multiplicity is the number of half-edges on
it: 1 boundary, 2 manifold, 3 or more non-manifold. Half-edge `3 f + k` runs from corner k of face f to
corner k + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class EdgeTable:
    """Edges sorted by (low, high) vertex; half-edges of one edge are neighbours in `order`."""

    edges: torch.Tensor  # [E, 2] int64, low before high
    counts: torch.Tensor  # [E] int64, multiplicity
    starts: torch.Tensor  # [E] int64, first place in `order`
    order: torch.Tensor  # [H] int64, half-edges grouped by edge, ascending inside one

    @property
    def boundary(self) -> torch.Tensor:
        """Half-edges [B] of multiplicity 1."""
        return self.order[self.starts[self.counts == 1]]

    @property
    def manifold_pairs(self) -> torch.Tensor:
        """The two half-edges [P, 2] of every edge of multiplicity 2."""
        first = self.starts[self.counts == 2]
        return torch.stack([self.order[first], self.order[first + 1]], dim=1)


def half_edges(faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and end vertex of every half-edge, [3 F] int64 each."""
    long = faces.long()
    return long.reshape(-1), long.roll(-1, dims=1).reshape(-1)


def next_corner(corner: torch.Tensor) -> torch.Tensor:
    """The half-edge after each on its face; its start is the other's end."""
    return torch.where(corner % 3 == 2, corner - 2, corner + 1)


def edge_table(faces: torch.Tensor, vertex_count: int) -> EdgeTable:
    """Index the edges of faces [F, 3]; half-edges from a vertex to itself are left out."""
    start, end = half_edges(faces)
    keys = torch.minimum(start, end) * vertex_count + torch.maximum(start, end)
    order = sort_order(keys)
    loops = start == end
    if bool(loops.any()):
        order = order[~loops[order]]
    keys = keys[order]
    first = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    first[1:] = keys[1:] != keys[:-1]
    starts = first.nonzero()[:, 0]
    counts = torch.diff(starts, append=torch.tensor([len(keys)], device=keys.device))
    low = torch.div(keys[starts], vertex_count, rounding_mode="floor")
    return EdgeTable(torch.stack([low, keys[starts] - low * vertex_count], dim=1), counts, starts, order)


def sort_order(keys: torch.Tensor) -> torch.Tensor:
    """Stable sorting permutation; NumPy's is faster than torch's on a CPU."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
    return torch.argsort(keys, stable=True)


def boundary_edges(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boundary half-edges as (start, end) rows [B, 2], and a mask [V] of vertices on non-manifold edges.

    Half the work of `edge_table`: keys alone are sorted, with the direction in their lowest bit.
    """
    start, end = half_edges(faces)
    keys = torch.minimum(start, end) * vertex_count + torch.maximum(start, end)
    keys = keys * 2 + (start > end)
    keys = keys[start != end]
    keys = torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values
    if len(keys) == 0:
        nothing = torch.zeros(vertex_count, dtype=torch.bool, device=keys.device)
        return torch.zeros((0, 2), dtype=torch.int64, device=keys.device), nothing
    edge = keys >> 1
    same = edge[1:] == edge[:-1]
    never = torch.zeros(1, dtype=torch.bool, device=keys.device)
    alone = ~torch.cat([never, same]) & ~torch.cat([same, never])
    third = edge[2:][same[1:] & same[:-1]]
    crowded = torch.zeros(vertex_count, dtype=torch.bool, device=keys.device)
    crowded[torch.div(third, vertex_count, rounding_mode="floor")] = True
    crowded[third % vertex_count] = True
    low = torch.div(edge[alone], vertex_count, rounding_mode="floor")
    high = edge[alone] - low * vertex_count
    backward = (keys[alone] & 1).bool()
    return torch.stack([torch.where(backward, high, low), torch.where(backward, low, high)], dim=1), crowded
