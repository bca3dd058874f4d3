"""Serial quadric edge collapse on the CPU, by fast-simplification with retries."""

from __future__ import annotations

import threading

import numpy as np
import torch

from ..repair.cleanup import remove_duplicate_faces, weld_vertices

CLOSE_ENOUGH = 1.01
"""Faces for each one of a budget that still count as within it."""

# How hard each attempt tries; every attempt starts from the last result. Low values first: they place
# vertices well but may stop early.
AGGRESSIVENESS = (3.0, 3.0, 3.0, 4.0, 5.0, 7.0, 7.0)
LAST_RESORT = (3.0, 5.0, 7.0, 9.0)
"""Without keeping borders, where the budget cannot be reached with them."""

MOST_BORDER = 0.5
"""Border edges for each face of the budget from which borders cannot be kept: each of them needs a face."""

STALLED = 0.1
"""Share of the surplus: an attempt that takes off less has met the borders, and so would all that follow."""

COUNTED = 1 << 17
"""Faces from which border edges are counted at every second, third, ... vertex only."""

SPACING = 0.5
"""Of the edges that a mesh of the budget would have: how close vertices are merged when all attempts fail."""

FINEST = 1 << 30
"""Cells from the origin to the farthest vertex, at most."""

_one_at_a_time = threading.Lock()


def quadric_collapse(
    vertices: torch.Tensor, faces: torch.Tensor, target_faces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Collapse until 1.01 * target faces remain or no attempt gets further (Garland & Heckbert 1997).

    Borders stay where they are as long as that leaves room for the budget. On a mesh frayed into thousands of
    open pieces it does not, and each attempt to keep them would search all of the mesh for nothing.
    """
    points, triangles = vertices.cpu().numpy(), faces.cpu().numpy()
    keep_borders = border_edges(triangles) <= MOST_BORDER * target_faces
    # The library keeps its mesh in process-wide variables.
    with _one_at_a_time:
        points, triangles = _collapse(points, triangles, target_faces, keep_borders)
    device = vertices.device
    return (
        torch.from_numpy(points.astype(np.float32)).to(device),
        torch.from_numpy(triangles.astype(np.int32)).to(device),
    )


def border_edges(triangles: np.ndarray) -> int:
    """How many edges of triangles [F, 3] have one face; in a large mesh about, judged by some of them."""
    every = max(1, len(triangles) // COUNTED)
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    low = np.minimum(start, end)
    some = np.flatnonzero(low % every == 0)
    keys = (low[some].astype(np.int64) << 32) | np.maximum(start[some], end[some])
    return every * int((np.unique(keys, return_counts=True)[1] == 1).sum())


def _collapse(
    points: np.ndarray, triangles: np.ndarray, target: int, keep_borders: bool
) -> tuple[np.ndarray, np.ndarray]:
    keeping = [(aggressiveness, True) for aggressiveness in AGGRESSIVENESS if keep_borders]
    letting_go = [(aggressiveness, False) for aggressiveness in LAST_RESORT]
    points, triangles = _attempted(points, triangles, target, keeping + letting_go)
    if len(triangles) > CLOSE_ENOUGH * target:
        # A frayed mesh is held up by edges of three faces and more, which no collapse may touch.
        points, triangles = _merged(points, triangles, target)
        points, triangles = _attempted(points, triangles, target, letting_go)
    return points, triangles


def _attempted(
    points: np.ndarray, triangles: np.ndarray, target: int, attempts: list[tuple[float, bool]]
) -> tuple[np.ndarray, np.ndarray]:
    """The mesh after as many attempts (aggressiveness, whether borders stay) as it takes."""
    import fast_simplification

    keep_borders = True
    for aggressiveness, keeping in attempts:
        if len(triangles) <= CLOSE_ENOUGH * target:
            break
        if keeping and not keep_borders:
            continue
        fewer_points, fewer = fast_simplification.simplify(
            points, triangles, target_count=target, agg=aggressiveness, preserve_border=keeping
        )
        if len(fewer) == 0 or not np.isfinite(fewer_points).all():
            continue  # an attempt that destroys the mesh is not an answer; a gentler one came before
        keep_borders = len(triangles) - len(fewer) >= STALLED * (len(triangles) - target)
        points, triangles = fewer_points, fewer
    return points, triangles


def _merged(points: np.ndarray, triangles: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a grid's cell as one, in their middle; the mesh as it was where that leaves nothing."""
    corners = points[triangles].astype(np.float64)
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    edge = np.sqrt(2 / np.sqrt(3) * np.linalg.norm(crosses, axis=1).sum() / target)
    if not np.abs(points).max() < FINEST * SPACING * edge:
        return points, triangles  # slivers only: their area says nothing about distances
    cells = np.floor(points / (SPACING * edge)).astype(np.int64)
    _, cell, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    middles = np.stack([np.bincount(cell, axis) for axis in points.T], axis=1) / counts[:, None]
    together = torch.from_numpy(middles[cell].astype(np.float32)), torch.from_numpy(triangles)
    vertices, faces = remove_duplicate_faces(*weld_vertices(*together))
    return (vertices.numpy(), faces.numpy()) if len(faces) else (points, triangles)
