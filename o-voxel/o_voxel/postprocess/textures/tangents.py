"""Tangent frames for the normal map, the way MikkTSpace lays them out.

Our charts share no vertex and mirror nothing, so one frame a vertex and one sign for the whole mesh are
exact; weights are the corner angles, as in Mikkelsen, "Simulation of Wrinkled Surfaces Revisited" (2008).
"""

from __future__ import annotations

import torch
from torch import Tensor


def vertex_tangents(vertices: Tensor, faces: Tensor, uvs: Tensor, normals: Tensor) -> Tensor:
    """Tangents [V, 4] float32, glTF's: xyz along growing u, unit, orthogonal to `normals` [V, 3]; w = +1 or
    -1.

    bitangent = w * cross(normal, tangent) points to *falling* v, the top of the picture: green is up.
    uvs [V, 2] have v growing downwards.
    """
    corners, flat = vertices.double()[faces.long()], uvs.double()[faces.long()]  # [F, 3, 3], [F, 3, 2]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    a, b = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    determinant = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]  # [F]
    sign = torch.where(determinant < 0, -1.0, 1.0).double()
    along_u = (first * b[:, 1:2] - second * a[:, 1:2]) * sign[:, None]
    along_u = torch.nn.functional.normalize(along_u, dim=1)

    total = torch.zeros_like(vertices, dtype=torch.float64)
    handed = torch.zeros(len(vertices), dtype=torch.float64, device=vertices.device)
    for k in range(3):
        left = torch.nn.functional.normalize(corners[:, (k + 1) % 3] - corners[:, k], dim=1)
        right = torch.nn.functional.normalize(corners[:, (k + 2) % 3] - corners[:, k], dim=1)
        angle = torch.arccos((left * right).sum(dim=1).clamp(-1, 1))
        total.index_add_(0, faces[:, k].long(), along_u * angle[:, None])
        handed.index_add_(0, faces[:, k].long(), sign * angle)
    n = normals.double()
    tangent = total - n * (n * total).sum(dim=1, keepdim=True)
    tangent = torch.where(tangent.norm(dim=1, keepdim=True) > 1e-9, tangent, _any_orthogonal(n))
    tangent = torch.nn.functional.normalize(tangent, dim=1)
    # (u, v) with v down is left-handed when the chart keeps its winding on screen.
    w = torch.where(handed < 0, 1.0, -1.0).to(tangent.dtype)
    return torch.cat([tangent, w[:, None]], dim=1).float()


def _any_orthogonal(normals: Tensor) -> Tensor:
    helper = torch.zeros_like(normals)
    helper.scatter_(1, normals.abs().argmin(dim=1, keepdim=True), 1.0)
    return torch.linalg.cross(normals, helper)


def to_tangent_space(directions: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
    """Coordinates [P, 3] of unit directions in the frames of interpolated `normals` [P, 3], `tangents` [P,
    4].

    As a shader decodes them: the frame is not re-orthogonalised; the bitangent is w * cross(normal, tangent).
    """
    n = torch.nn.functional.normalize(normals, dim=1)
    t = torch.nn.functional.normalize(tangents[:, :3], dim=1)
    b = tangents[:, 3:].sign() * torch.linalg.cross(n, t)
    along_t, along_b, along_n = ((directions * axis).sum(dim=1, keepdim=True) for axis in (t, b, n))
    # b is orthogonal to both others, which are not quite so to each other; all three share this denominator.
    skew = (t * n).sum(dim=1, keepdim=True)
    local = torch.cat([along_t - skew * along_n, along_b, along_n - skew * along_t], dim=1)
    local /= (1 - skew**2).clamp(min=1e-6)
    local[:, 2].clamp_(min=0.05)  # a map cannot hold directions below the surface
    return torch.nn.functional.normalize(local, dim=1)
