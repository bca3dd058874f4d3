"""Parallel edge collapse: in each step every edge that is the cheapest of its surroundings goes at once."""

from __future__ import annotations

import torch

from ... import kernels
from ..arrays.edges import EdgeTable, edge_table, sort_order

FIRST_THRESHOLD = 1e-8
SLOW = 0.01
"""A step that removes a smaller share of the faces makes the next ones accept ten times the cost."""

LENGTH_WEIGHT = 1e-2
SKINNY_WEIGHT = 1e-3
MOST_STEPS = 1000
"""A bound that no real mesh comes near: each step removes 1 % or accepts ten times the cost."""


def parallel_collapse(
    vertices: torch.Tensor, faces: torch.Tensor, target_faces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Collapse until at most `target_faces` remain or every further collapse would turn a triangle over.

    Costs are those of planes around both ends, plus terms for length and shape; see `cost_kernel`. Costs are
    lengths squared: the weights and the first threshold suit a mesh about the size of the unit cube. The last
    step takes only as many collapses, cheapest first, as the budget still asks for.
    """
    threshold = FIRST_THRESHOLD
    for _ in range(MOST_STEPS):
        count = len(faces)
        if count <= target_faces or count == 0:
            break
        table = edge_table(faces, len(vertices))
        cost, position = _edge_costs(vertices, faces, table)
        if not bool((cheapest := cost.min()).isfinite()):
            break
        while cheapest > threshold:  # steps that would find nothing to do
            threshold *= 10
        chosen = _independent(table.edges, faces, len(vertices), cost, threshold)
        chosen = _within_budget(chosen, cost, table, count - target_faces)
        fewer = _apply(vertices, faces, table.edges[chosen], position[chosen])
        if len(fewer[1]) == 0:  # a last triangle, or two back to back, are the least there is
            break
        vertices, faces = fewer
        if len(faces) > (1 - SLOW) * count:
            threshold *= 10
    return vertices, faces


def _within_budget(chosen: torch.Tensor, cost: torch.Tensor, table: EdgeTable, wanted: int) -> torch.Tensor:
    """The cheapest of the chosen edges that together remove `wanted` faces; all of them if that takes all."""
    order = chosen[torch.argsort(cost[chosen], stable=True)]
    removed = table.counts[order]
    return order[removed.cumsum(0) - removed < wanted]


def _apply(
    vertices: torch.Tensor, faces: torch.Tensor, edges: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the two ends of every edge [K, 2] at positions [K, 3]; no two edges share a vertex."""
    kept, gone = edges.unbind(dim=1)
    vertices = vertices.clone()
    vertices[kept] = positions
    renamed = torch.arange(len(vertices), device=vertices.device)
    renamed[gone] = kept
    faces = renamed[faces.long()]
    faces = faces[(faces != faces.roll(-1, dims=1)).all(dim=1)]
    stays = torch.ones(len(vertices), dtype=torch.bool, device=vertices.device)
    stays[gone] = False
    return vertices[stays], (stays.cumsum(0) - 1)[faces].int()


def _edge_costs(
    vertices: torch.Tensor, faces: torch.Tensor, table: EdgeTable
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cost [E] and collapse position [E, 3] of every edge."""
    from .collapse_kernels import cost_kernel

    device = vertices.device
    corners = sort_order(faces.reshape(-1))
    first_corner = torch.zeros(len(vertices) + 1, dtype=torch.int32, device=device)
    first_corner[1:] = torch.bincount(faces.reshape(-1).long(), minlength=len(vertices)).cumsum(0)
    on_boundary = torch.zeros(len(vertices), dtype=torch.uint8, device=device)
    on_boundary[table.edges[table.counts == 1].reshape(-1)] = 1
    cost = torch.empty(len(table.edges), dtype=torch.float32, device=device)
    position = torch.empty((len(table.edges), 3), dtype=torch.float32, device=device)
    inputs = [
        vertices,
        faces.reshape(-1),
        first_corner,
        corners.int(),
        on_boundary,
        table.edges.reshape(-1).int(),
        LENGTH_WEIGHT,
        SKINNY_WEIGHT,
        cost,
        position,
    ]
    kernels.launch(cost_kernel, len(table.edges), inputs, device)
    return cost, position


def _independent(
    edges: torch.Tensor, faces: torch.Tensor, vertex_count: int, cost: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Edges [K] that cost at most `threshold` and are the cheapest of all that touch a face at either end.

    Costs and edge numbers share one integer, costs above, so that ties go to the lower number.
    """
    device = edges.device
    # Bits of a non-negative float order like the float.
    bits = cost.clamp(min=0.0).nan_to_num(nan=torch.inf, posinf=torch.inf).view(torch.int32).long()
    keys = (bits << 32) | torch.arange(len(edges), device=device)
    never = torch.iinfo(torch.int64).max
    at_vertex = torch.full((vertex_count,), never, dtype=torch.int64, device=device)
    at_vertex.scatter_reduce_(0, edges.T.reshape(-1), keys.repeat(2), "amin")
    corners = faces.long()
    at_face = at_vertex[corners].amin(dim=1)
    around = torch.full((vertex_count,), never, dtype=torch.int64, device=device)
    around.scatter_reduce_(0, corners.T.reshape(-1), at_face.repeat(3), "amin")
    cheapest = torch.minimum(around[edges[:, 0]], around[edges[:, 1]]) == keys
    return (cheapest & (cost <= threshold) & torch.isfinite(cost)).nonzero()[:, 0]
