"""Slow, obviously right counterparts of the rasteriser."""

from __future__ import annotations

import numpy as np


def cover(screen: np.ndarray, faces: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face (lowest id on ties) and depth by exact integer edge functions.

    screen [V, 3]: x and y in 1/256 pixels (whole numbers, 0 at the centre of pixel 0), z.
    """
    face_id = np.full((height, width), -1)
    depth = np.full((height, width), np.inf)
    for f, corners in enumerate(faces):
        a, b, c = (screen[i] for i in corners)
        area = edge(a, b, c[0], c[1])
        if area == 0:
            continue
        if area < 0:
            b, c, area = c, b, -area
        for y in range(height):
            for x in range(width):
                px, py = 256 * x, 256 * y
                weights = [edge(b, c, px, py), edge(c, a, px, py), edge(a, b, px, py)]
                owned = [
                    w > 0 or (w == 0 and owns(p, q))
                    for w, (p, q) in zip(weights, ((b, c), (c, a), (a, b)), strict=True)
                ]
                if all(owned):
                    z = sum(w * p[2] for w, p in zip(weights, (a, b, c), strict=True)) / area
                    if -1 <= z <= 1 and z < depth[y, x] - 1e-9:
                        face_id[y, x], depth[y, x] = f, z
    return face_id, depth


def edge(p: np.ndarray, q: np.ndarray, x: float, y: float) -> float:
    return float((q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]))


def owns(p: np.ndarray, q: np.ndarray) -> bool:
    return bool(q[1] > p[1] or (q[1] == p[1] and q[0] < p[0]))


def to_clip(screen: np.ndarray, height: int, width: int, w: np.ndarray) -> np.ndarray:
    """Clip positions [V, 4] that project to the given screen positions."""
    x = (screen[:, 0] / 256 + 0.5) / width * 2 - 1
    y = (screen[:, 1] / 256 + 0.5) / height * 2 - 1
    return np.stack([x * w, y * w, screen[:, 2] * w, w], 1).astype(np.float32)
