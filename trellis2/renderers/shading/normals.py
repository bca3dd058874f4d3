"""Shading normals for meshes whose winding cannot be trusted."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# A corner follows the smooth normal within 25 degrees of its face, and the face alone beyond 44 degrees.
SMOOTH_BELOW = 0.906
FLAT_ABOVE = 0.72

# Shading normals stay at least this much (a cosine) on the eye's side.
LEAST_COSINE = 0.02


def face_cross(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """[F, 3] face normals with twice the area as length, by the winding."""
    a, b, c = (vertices.index_select(0, faces[:, i]) for i in range(3))
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """[V, 3] unit normals up to sign, area weighted; 0 where no face is.

    Neighbouring faces may be wound either way: each is turned to agree with a normal kept at the vertex,
    first that of its first face, then the mean of the first round.
    """
    cross = face_cross(vertices, faces)
    count = vertices.shape[0]
    corners = faces.long()  # index_add_ is six times as fast with 64-bit indices on a CPU
    order = torch.arange(faces.shape[0], device=faces.device)
    first = torch.full((count,), faces.shape[0], device=faces.device)
    first.scatter_reduce_(0, corners.reshape(-1), order.repeat_interleave(3), "amin")
    kept = torch.cat([cross, cross.new_zeros((1, 3))]).index_select(0, first)
    for _ in range(2):
        total = torch.zeros_like(vertices)
        for corner in range(3):
            index = corners[:, corner]
            agrees = (cross * kept.index_select(0, index)).sum(-1, keepdim=True)
            total.index_add_(0, index, torch.where(agrees < 0, -cross, cross))
        kept = total
    return F.normalize(kept, dim=-1)


def smooth_normals(
    normals: torch.Tensor,
    faces: torch.Tensor,
    face_id: torch.Tensor,
    barycentric: torch.Tensor,
    flat: torch.Tensor,
) -> torch.Tensor:
    """[P, 3] unit shading normals, on the side of the face normals `flat` [P, 3].

    normals [V, 3] as from `vertex_normals`; creases keep the face's own normal.
    """
    corners = faces.index_select(0, face_id)
    weights = (barycentric[:, 0], barycentric[:, 1], 1.0 - barycentric[:, 0] - barycentric[:, 1])
    total = torch.zeros_like(flat)
    for corner, weight in enumerate(weights):
        normal = normals.index_select(0, corners[:, corner])
        cosine = (normal * flat).sum(-1)
        ramp = ((cosine.abs() - FLAT_ABOVE) / (SMOOTH_BELOW - FLAT_ABOVE)).clamp(0.0, 1.0)
        smooth = ramp * ramp * (3.0 - 2.0 * ramp) * weight
        total.addcmul_(normal, (smooth * cosine.sign())[:, None])
        total.addcmul_(flat, (weight - smooth)[:, None])
    return F.normalize(total, dim=-1)


def face_eye(normal: torch.Tensor, to_eye: torch.Tensor, least: float = LEAST_COSINE) -> torch.Tensor:
    """Bend normals [P, 3] that turn away from the eye just enough to be seen (at silhouettes of coarse
    meshes).
    """
    cosine = (normal * to_eye).sum(-1, keepdim=True)
    return F.normalize(normal + to_eye * (least - cosine).clamp(min=0.0), dim=-1)
