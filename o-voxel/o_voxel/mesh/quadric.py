"""Serial quadric edge collapse on the CPU, by fast-simplification with retries."""

from __future__ import annotations

import threading

import numpy as np
import torch

# How hard each attempt tries; every attempt starts from the last result. Low values first: they place
# vertices well but may stop early. Borders are kept until only the last, desperate attempts can reach the
# budget.
AGGRESSIVENESS = (3.0, 3.0, 3.0, 4.0, 5.0, 7.0, 7.0)
LAST_RESORT = (5.0, 7.0, 9.0)
CLOSE_ENOUGH = 1.01

_one_at_a_time = threading.Lock()


def quadric_collapse(
    vertices: torch.Tensor, faces: torch.Tensor, target_faces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Collapse until 1.01 * target faces remain or no attempt gets further (Garland & Heckbert 1997)."""
    # The library keeps its mesh in process-wide variables.
    with _one_at_a_time:
        points, triangles = _collapse(vertices.cpu().numpy(), faces.cpu().numpy(), target_faces)
    device = vertices.device
    return (
        torch.from_numpy(points.astype(np.float32)).to(device),
        torch.from_numpy(triangles.astype(np.int32)).to(device),
    )


def _collapse(points: np.ndarray, triangles: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    import fast_simplification

    attempts = [(aggressiveness, True) for aggressiveness in AGGRESSIVENESS]
    attempts += [(aggressiveness, False) for aggressiveness in LAST_RESORT]
    for aggressiveness, keep_border in attempts:
        if len(triangles) <= CLOSE_ENOUGH * target:
            break
        fewer_points, fewer = fast_simplification.simplify(
            points, triangles, target_count=target, agg=aggressiveness, preserve_border=keep_border
        )
        if len(fewer) == 0 or not np.isfinite(fewer_points).all():
            continue  # an attempt that destroys the mesh is not an answer; a gentler one came before
        points, triangles = fewer_points, fewer
    return points, triangles
