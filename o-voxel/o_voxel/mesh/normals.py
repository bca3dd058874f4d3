"""Face and vertex normals, and face areas."""

from __future__ import annotations

import torch


def face_crosses(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """(v1 - v0) x (v2 - v0) of every face [F, 3]: normal direction, twice the area long."""
    long = faces.long()
    origin = vertices[long[:, 0]]
    return torch.linalg.cross(vertices[long[:, 1]] - origin, vertices[long[:, 2]] - origin)


def face_areas(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Area of every face [F]."""
    return torch.linalg.vector_norm(face_crosses(vertices, faces), dim=1) / 2


def face_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Unit normal of every face [F, 3]; zero for a face without area."""
    crosses = face_crosses(vertices, faces)
    return crosses / torch.linalg.vector_norm(crosses, dim=1, keepdim=True).clamp_min(torch.finfo().tiny)


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Area-weighted unit normal of every vertex [V, 3].

    Where the sum vanishes, the normal of the vertex's first face serves; where there is none, +z, so that
    every row is a unit vector.
    """
    crosses = face_crosses(vertices, faces)
    corners = faces.long().reshape(-1)
    total = torch.zeros_like(vertices).index_add_(0, corners, crosses.repeat_interleave(3, dim=0))
    length = torch.linalg.vector_norm(total, dim=1)
    lost = length <= torch.finfo(total.dtype).tiny
    if bool(lost.any()):
        first = torch.full((len(vertices),), len(faces), dtype=torch.int64, device=faces.device)
        face = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
        has_area = torch.linalg.vector_norm(crosses, dim=1)[face] > torch.finfo(total.dtype).tiny
        first.scatter_reduce_(0, corners[has_area], face[has_area], "amin")
        up = torch.tensor([[0.0, 0.0, 1.0]], dtype=total.dtype, device=total.device)
        total = torch.where(lost[:, None], torch.cat([crosses, up])[first], total)
        length = torch.linalg.vector_norm(total, dim=1)
    return total / length[:, None]
