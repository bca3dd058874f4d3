"""Where a file's mesh stands and how long a unit of it is: size, pivot and the axis that points up."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError

PIVOTS = ("origin", "base", "center")
"""What lies at the file's origin: the decoder's own, the middle of the underside, the middle of the box."""


def to_y_up(vectors: np.ndarray) -> np.ndarray:
    """(x, y, z) to (x, z, -y): the decoder's z up to glTF's y up, a rotation."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


def to_z_up(vectors: np.ndarray) -> np.ndarray:
    """The inverse of `to_y_up`."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)


def check_placement(size: float | None, pivot: str) -> None:
    if size is not None and not (np.isfinite(size) and size > 0):
        raise ArgumentError(f"a size must be positive, got {size}")
    if pivot not in PIVOTS:
        raise ArgumentError(f"pivot {pivot!r}: one of {', '.join(PIVOTS)}")


class Placement:
    """A shift and a scale, taken from one mesh so that others (levels of detail, a hull) can follow it.

    `vertices` [V, 3] y up; `size` is the longest side afterwards (None: as it is).
    """

    def __init__(self, vertices: np.ndarray, size: float | None = None, pivot: str = "origin") -> None:
        check_placement(size, pivot)
        low, high = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
        longest = float((high - low).max())
        self.scale = 1.0 if size is None or longest == 0 else size / longest
        self.origin = np.zeros(3)
        if pivot != "origin":
            self.origin = (low + high) / 2
            if pivot == "base":
                self.origin[1] = low[1]

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """float32 [V, 3]; the same array when nothing changes."""
        if self.scale == 1.0 and not self.origin.any():
            return vertices
        return ((vertices - self.origin) * self.scale).astype(np.float32)
