"""What evaluation measures: distances of surfaces, colours of visible points, connectedness."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

AABB = [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
DOMINANT_SHARE = 0.8  # of the area, for a mesh to count as one piece


def surface_points(vertices: Tensor, faces: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points `[count, 3]` spread evenly over a mesh's area, on the CPU; `[0, 3]` for a mesh without area."""
    vertices, faces = vertices.detach().cpu().float(), faces.cpu().long()
    corners = vertices[faces]  # [F, 3, 3]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    ends = areas.double().cumsum(0)
    if not len(faces) or not float(ends[-1]) > 0:
        return torch.zeros(0, 3)
    chosen = torch.searchsorted(ends, torch.rand(count, generator=generator).double() * ends[-1])
    a, b = torch.rand(2, count, 1, generator=generator)
    flip = a + b > 1
    a, b = torch.where(flip, 1 - a, a), torch.where(flip, 1 - b, b)
    p = corners[chosen.clamp(max=len(faces) - 1)]
    return p[:, 0] + a * (p[:, 1] - p[:, 0]) + b * (p[:, 2] - p[:, 0])


def nearest(points: Tensor, queries: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Distance and index of the nearest of `points` for each query."""
    from scipy.spatial import cKDTree

    distances, rows = cKDTree(points.numpy()).query(queries.numpy(), workers=torch.get_num_threads())
    return np.asarray(distances), np.asarray(rows)


def f_scores(truth: Tensor, made: Tensor, thresholds: tuple[float, ...]) -> list[float]:
    """Harmonic mean of precision and recall of two point sets at each distance; zeros for an empty set."""
    if not len(made):
        return [0.0 for _ in thresholds]
    to_truth, to_made = nearest(truth, made)[0], nearest(made, truth)[0]
    scores = []
    for t in thresholds:
        precision, recall = float((to_truth <= t).mean()), float((to_made <= t).mean())
        scores.append(2 * precision * recall / max(precision + recall, 1e-9))
    return scores


def quarter_turns(points: Tensor) -> list[Tensor]:
    """The points as they are and turned by 90, 180 and 270 degrees about the vertical."""
    turned = [points]
    for k in (1, 2, 3):
        c, s = round(math.cos(k * math.pi / 2)), round(math.sin(k * math.pi / 2))
        turned.append(points @ torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=points.dtype))
    return turned


def dominant_share(vertices: Tensor, faces: Tensor) -> float:
    """Area of the largest connected component over the whole area."""
    from o_voxel.mesh.repair.components import component_areas, face_components

    if not len(faces):
        return 0.0
    vertices, faces = vertices.cpu(), faces.cpu()
    areas = component_areas(vertices, faces, face_components(faces, len(vertices)))
    return float(areas.max() / areas.sum().clamp(min=1e-12))
