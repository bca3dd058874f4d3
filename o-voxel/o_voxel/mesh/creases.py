"""Shading across creases: vertices are doubled where faces meet at a sharp angle.

Smooth normals over a hard edge draw its shadow far into large flat triangles, which simplification makes.
"""

from __future__ import annotations

import math

import torch

from .arrays.edges import edge_table, next_corner
from .arrays.graph import connected_labels
from .normals import face_crosses, face_normals, vertex_normals

CREASE_ANGLE = math.radians(65)
"""Between face normals: a box's edge is sharp, a thin hexagonal rod still shades round."""

GRAZING = 0.05
"""Cosine to its face's normal from which a corner normal is the face's own: 8-bit files must not turn it."""


def shading_normals(
    vertices: torch.Tensor, faces: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source vertex [N], faces [F, 3] int32 into these, and unit normals [N, 3] that no face has behind it.

    A vertex that joins faces of all directions without a crease has no normal that suits each of them.
    """
    source, shading = split_creases(vertices, faces)
    normals = vertex_normals(vertices[source], shading)
    own = face_normals(vertices, faces)
    cosine = (normals[shading.long()] * own[:, None]).sum(dim=2)
    area = face_crosses(vertices, faces).square().sum(dim=1) > 0
    wrong = ((cosine < GRAZING) & area[:, None]).nonzero()  # [K, 2]
    if not len(wrong):
        return source, shading, normals
    face, corner = wrong.unbind(dim=1)
    shading[face, corner] = len(source) + torch.arange(len(wrong), dtype=shading.dtype, device=faces.device)
    return torch.cat([source, faces[face, corner].long()]), shading, torch.cat([normals, own[face]])


def split_creases(
    vertices: torch.Tensor, faces: torch.Tensor, angle: float = CREASE_ANGLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Source vertex [N] of each new vertex, and faces [F, 3] int32 into these.

    Corners at a vertex stay one vertex while manifold edges bent by less than `angle` (radians) connect
    them. Vertices away from any crease are left whole.
    """
    count = len(vertices)
    pairs = edge_table(faces, count).manifold_pairs  # [P, 2] half-edges: 3 * face + corner
    corner_vertex = faces.reshape(-1).long()
    first, second = pairs.unbind(dim=1)
    first_end, second_end = next_corner(first), next_corner(second)
    opposite = corner_vertex[first] == corner_vertex[second_end]
    normals = face_normals(vertices, faces)
    cosine = (
        normals[torch.div(first, 3, rounding_mode="floor")]
        * normals[torch.div(second, 3, rounding_mode="floor")]
    ).sum(dim=1)
    # Neighbours that wind opposite ways (the seam of a one-sided surface) have normals that would cancel.
    sharp = ~opposite | (cosine < math.cos(angle))

    creased = torch.zeros(count, dtype=torch.bool, device=faces.device)
    creased[corner_vertex[first[sharp]]] = True
    creased[corner_vertex[first_end[sharp]]] = True
    corners = creased[corner_vertex].nonzero()[:, 0]  # [C]
    place = torch.full((len(corner_vertex),), -1, dtype=torch.int64, device=faces.device)
    place[corners] = torch.arange(len(corners), device=faces.device)
    joined = torch.cat(
        [
            torch.stack([first, torch.where(opposite, second_end, second)], dim=1)[~sharp],
            torch.stack([first_end, torch.where(opposite, second, second_end)], dim=1)[~sharp],
        ]
    )
    joined = place[joined[creased[corner_vertex[joined[:, 0]]]]]
    labels = connected_labels(len(corners), joined)

    split = corner_vertex.clone()
    split[corners] = count + labels
    source = torch.arange(count + (int(labels.max()) + 1 if len(labels) else 0), device=faces.device)
    source[split[corners]] = corner_vertex[corners]
    used, compact = torch.unique(split, return_inverse=True)
    return source[used], compact.reshape(-1, 3).int()
