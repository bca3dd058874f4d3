"""Which faces are seen through, so that a file can draw them after all others.

Viewers draw a blended material without depth, in the order of its faces: a whole asset drawn so shows its
far side in front. Two materials over the same vertices keep the solid part solid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .material import Material

OPAQUE_FROM = 0.95
"""Alpha from which a texel counts as solid."""

_SHARE = 0.05  # of a face's texels: fewer are the blur of a neighbour


def translucent_faces(face_id: Tensor, alpha: Tensor, uvs: Tensor, faces: Tensor) -> Tensor:
    """Bool [F]: faces of which more than a few texels are see-through.

    face_id [T, T] from `rasterize_uv`, alpha [T, T] uint8 with gutters filled, uvs [W, 2], faces [F, 3].
    Faces too small for a texel go by the one that they lie in.
    """
    size = alpha.shape[0]
    clear = alpha < OPAQUE_FROM * 255
    drawn = face_id >= 0
    texels = torch.bincount(face_id[drawn].long(), minlength=len(faces))
    seen = torch.bincount(face_id[drawn & clear].long(), minlength=len(faces))
    middle = (uvs[faces.long()].mean(dim=1) * size).long().clamp(0, size - 1)
    return torch.where(texels > 0, seen > _SHARE * texels, clear[middle[:, 1], middle[:, 0]])


def drawing_order(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Indices [F] of see-through faces, those that look inwards first: what lies behind is drawn before."""
    corners = vertices[faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    middle = corners.mean(axis=1)
    centre = (middle * area[:, None]).sum(axis=0) / max(area.sum(), np.finfo(float).tiny)
    outwards = (normal * (middle - centre)).sum(axis=1) >= 0
    return np.argsort(outwards, kind="stable")


def parts_by_alpha(
    vertices: np.ndarray, faces: np.ndarray, see_through: np.ndarray | None, material: Material
) -> list[tuple[str, np.ndarray]]:
    """Alpha mode and faces of each part of a file: the solid one first, or all faces in one."""
    if see_through is None or not see_through.any():
        return [(material.alpha_mode, faces)]
    clear = faces[see_through]
    clear = clear[drawing_order(vertices, clear)]
    solid = faces[~see_through]
    return [("OPAQUE", solid), (material.alpha_mode, clear)] if len(solid) else [(material.alpha_mode, clear)]
