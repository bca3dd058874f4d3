"""Edge flips: more even triangles of the same vertices, on a surface that stays where it is.

A collapse leaves slivers where a surface is flat. There the other diagonal of two triangles is as true, and
may be better shaped (Frey and Field, "Mesh relaxation", 1991, without their moves of vertices, which cost
accuracy).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arrays.edges import EdgeTable, edge_table, next_corner
from ..normals import face_crosses

BEND = math.cos(math.radians(20))
"""Cosine between neighbours, before and after, from which an edge counts as one of a smooth surface."""

CLOSE = 0.02
"""Of a mean side: how far apart the two diagonals may be."""

GAIN = 0.02
"""Least improvement of the worse of the two triangles."""

ROUNDS = 10


def even_out(vertices: Tensor, faces: Tensor) -> Tensor:
    """Faces [F, 3] int32 with edges flipped wherever the worse triangle beside one becomes more even.

    Creases stay, and so do open edges and those of three faces. What was closed and manifold still is.
    """
    points = vertices.double()
    faces = faces.long().clone()
    if not len(faces):
        return faces.int()
    area = float(torch.linalg.vector_norm(face_crosses(points, faces), dim=1).mean()) / 2
    reach = CLOSE * math.sqrt(4 / math.sqrt(3) * area)
    for _ in range(ROUNDS):
        table = edge_table(faces, len(points))
        half, made, gain = _flips(points, faces, table, reach)
        chosen = _independent(half, made, gain, len(faces), len(points))
        if not len(chosen):
            break
        faces[torch.div(half[chosen], 3, rounding_mode="floor")] = made[chosen]
    return faces.int()


def evenness(vertices: Tensor, faces: Tensor) -> Tensor:
    """The shape of each face [F]: its area over that of an equilateral one with the same sum of squared
    sides, 0 to 1."""
    corners = vertices.double()[faces.long()]
    sides = (corners - corners.roll(1, dims=1)).square().sum(dim=(1, 2))
    doubled = torch.linalg.vector_norm(face_crosses(vertices.double(), faces), dim=1)
    return 2 * math.sqrt(3) * doubled / sides.clamp(min=1e-30)


def _flips(points: Tensor, faces: Tensor, table: EdgeTable, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Half-edge pairs [N, 2] of edges worth a flip, their two faces [N, 2, 3] after it, and the gain [N]."""
    corner = faces.reshape(-1)
    half = table.manifold_pairs
    first, second = half.unbind(dim=1)
    a, b = corner[first], corner[next_corner(first)]
    c, d = corner[next_corner(next_corner(first))], corner[next_corner(next_corner(second))]
    low, high = torch.minimum(c, d), torch.maximum(c, d)
    known = table.edges[:, 0] * len(points) + table.edges[:, 1]
    allowed = (corner[second] == b) & (c != d) & ~torch.isin(low * len(points) + high, known)
    half, a, b, c, d = half[allowed], a[allowed], b[allowed], c[allowed], d[allowed]
    before = torch.stack([torch.stack([a, b, c], dim=1), torch.stack([b, a, d], dim=1)], dim=1)  # [N, 2, 3]
    after = torch.stack([torch.stack([a, d, c], dim=1), torch.stack([d, b, c], dim=1)], dim=1)
    all_four = torch.cat([before, after], dim=1)
    flat = all_four.reshape(-1, 3)
    normals = torch.nn.functional.normalize(face_crosses(points, flat), dim=1, eps=1e-30).reshape(-1, 4, 3)
    middle = torch.nn.functional.normalize(normals[:, :2].sum(dim=1), dim=1, eps=1e-30)
    smooth = (normals[:, 0] * normals[:, 1]).sum(dim=1) >= BEND
    smooth &= ((normals[:, 2:] * middle[:, None]).sum(dim=2) >= BEND).all(dim=1)
    across = torch.linalg.cross(points[b] - points[a], points[d] - points[c])
    across = torch.nn.functional.normalize(across, dim=1, eps=1e-30)
    apart = ((points[c] - points[a]) * across).sum(dim=1).abs()
    shape = evenness(points, flat).reshape(-1, 4)
    gain = shape[:, 2:].amin(dim=1) - shape[:, :2].amin(dim=1)
    worth = smooth & (apart <= reach) & (gain > GAIN)
    return half[worth], after[worth], gain[worth]


def _independent(half: Tensor, made: Tensor, gain: Tensor, face_count: int, vertex_count: int) -> Tensor:
    """Rows of flips that share no face and make no edge twice, the best first."""
    order = torch.argsort(gain, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    face = torch.div(half, 3, rounding_mode="floor")
    best = torch.full((face_count,), len(order), device=order.device)
    best.scatter_reduce_(0, face.T.reshape(-1), rank.repeat(2), "amin")
    wins = (best[face] == rank[:, None]).all(dim=1).nonzero()[:, 0]
    ends = made[wins][:, 0, 1:].sort(dim=1).values  # the new edge
    _, edge = torch.unique(ends[:, 0] * vertex_count + ends[:, 1], return_inverse=True)
    first = torch.full((int(edge.max()) + 1 if len(edge) else 0,), len(order), device=order.device)
    first.scatter_reduce_(0, edge, rank[wins], "amin")
    return wins[first[edge] == rank[wins]]
