"""Closing small holes with a fan of triangles."""

from __future__ import annotations

import torch

from .. import cumesh_backend
from ..arrays.edges import boundary_edges
from ..arrays.graph import connected_labels
from ..validation import check_mesh


def fill_holes(
    vertices: torch.Tensor, faces: torch.Tensor, max_perimeter: float = 3e-2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Close every boundary loop shorter than `max_perimeter` (mesh units) with a fan around its centroid.

    One vertex a hole (the mean of its edges' midpoints) and one face a boundary edge are appended; each new
    face runs against its neighbour's half-edge, so its normal agrees with the neighbour's. Boundary edges
    form one loop when they chain through vertices with at most two boundary edges and no non-manifold edge,
    and each of them meets another of the same loop at both ends (a hole pinched at one vertex counts; an
    open chain does not).

    Raises:
        MeshError: invalid arrays.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) and cumesh_backend.selected(vertices.device):
        return cumesh_backend.fill_holes(vertices, faces, max_perimeter)
    rim, crowded = boundary_edges(faces, len(vertices))  # [B, 2], along the faces' winding
    if len(rim) == 0:
        return vertices, faces
    labels = _chains(rim, crowded)
    loops = _is_loop(rim, labels)
    count = int(labels.max()) + 1
    ends = vertices[rim].double()  # [B, 2, 3]
    perimeter = _sums(torch.linalg.vector_norm(ends[:, 0] - ends[:, 1], dim=1), labels, count)
    size = _sums(torch.ones(len(rim), dtype=torch.float64, device=rim.device), labels, count)
    centres = _sums(ends.mean(dim=1), labels, count) / size[:, None]
    fill = loops & (perimeter < max_perimeter)
    chosen = fill[labels]
    apex = len(vertices) + fill.cumsum(0) - 1
    fan = torch.stack([rim[chosen, 1], rim[chosen, 0], apex[labels[chosen]]], dim=1)
    return torch.cat([vertices, centres[fill].float()]), torch.cat([faces, fan.int()])


def _sums(values: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    total = torch.zeros((count, *values.shape[1:]), dtype=values.dtype, device=values.device)
    return total.index_add_(0, labels, values)


def _chains(rim: torch.Tensor, crowded: torch.Tensor) -> torch.Tensor:
    """Label [B] of boundary edges joined through vertices that have no other way to go."""
    edge = torch.arange(len(rim), device=rim.device).repeat(2)
    vertex = torch.cat([rim[:, 0], rim[:, 1]])
    degree = torch.zeros(len(crowded), dtype=torch.int64, device=rim.device)
    degree.index_add_(0, vertex, torch.ones_like(vertex))
    order = torch.argsort(vertex)
    vertex, edge = vertex[order], edge[order]
    usable = (degree[vertex] == 2) & ~crowded[vertex]
    joined = (vertex[1:] == vertex[:-1]) & usable[1:]
    return connected_labels(len(rim), torch.stack([edge[:-1][joined], edge[1:][joined]], dim=1))


def _is_loop(rim: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether each chain's every edge meets another edge of that chain at both ends, bool [chains]."""
    count = int(labels.max()) + 1
    ends = rim * count + labels[:, None]  # a key for (vertex, chain)
    _, place, uses = torch.unique(ends, return_inverse=True, return_counts=True)
    closed = torch.ones(count, dtype=torch.bool, device=rim.device)
    closed[labels[(uses[place] < 2).any(dim=1)]] = False
    return closed
