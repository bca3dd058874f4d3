"""A convex hull of few corners, as physics engines take for collisions."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import MeshError
from .quality import directions

CORNERS = 120
"""Directions whose extreme points become corners; engines allow 255 corners."""


def convex_hull(vertices: np.ndarray, corners: int = CORNERS) -> tuple[np.ndarray, np.ndarray]:
    """Corners [H, 3] float32 and outward faces [F, 3] int32 of the hull of the points of vertices [V, 3] that
    lie
    furthest in `corners` directions: inside the true hull, and close to it.

    Raises:
        MeshError: the points have no volume.
    """
    from scipy.spatial import ConvexHull, QhullError

    points = np.asarray(vertices, dtype=np.float64)
    axes = torch.cat([torch.eye(3), -torch.eye(3), directions(corners - 6)]).numpy()
    extreme = points[np.unique((points @ axes.T).argmax(axis=0))]
    try:
        hull = ConvexHull(extreme)
    except (QhullError, ValueError) as error:
        raise MeshError("a flat mesh has no convex hull") from error
    faces = hull.simplices.astype(np.int64)
    a, b, c = (extreme[faces[:, k]] for k in range(3))
    inward = np.einsum("fd,fd->f", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, [0, 2, 1]]
    used, compact = np.unique(faces, return_inverse=True)
    return extreme[used].astype(np.float32), compact.reshape(-1, 3).astype(np.int32)
