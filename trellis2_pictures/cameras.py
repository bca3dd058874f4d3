"""What people say of where pictures were taken from: checked alike by client, service and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DIRECTIONS = {"front": 0, "left": 90, "back": 180, "right": 270}
"""The object's own side that a level camera sees, and the camera's azimuth in degrees, counter-clockwise from
above."""

MAX_VIEWS = 8
RIGID_TOLERANCE = 1e-3


class CameraError(ValueError):
    """The text says what is wrong with a camera, and what one is."""


def check_direction(name: str) -> str:
    """The direction if it is one; raises `CameraError`."""
    if name not in DIRECTIONS:
        raise CameraError(f"view {name[:40]!r} is none of {', '.join(DIRECTIONS)}")
    return name


def rigid_matrix(rows: Sequence[Sequence[float]] | Any) -> np.ndarray:
    """Camera-to-world `[4, 4]` float64 from rows; raises `CameraError` for what is no rigid motion."""
    try:
        c2w = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CameraError(f"a camera matrix must be four rows of four numbers ({error})") from error
    if c2w.shape != (4, 4):
        raise CameraError(f"a camera matrix must be 4x4, got {'x'.join(map(str, c2w.shape))}")
    if not np.isfinite(c2w).all():
        raise CameraError("a camera matrix holds NaN or infinity")
    if float(np.abs(c2w[3] - (0, 0, 0, 1)).max()) > RIGID_TOLERANCE:
        raise CameraError(f"the last row of a camera matrix must be 0 0 0 1, got {c2w[3].tolist()}")
    rotation = c2w[:3, :3]
    skew = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    turn = float(np.linalg.det(rotation))
    if skew > RIGID_TOLERANCE or turn < 0:
        raise CameraError(
            f"the upper left 3x3 of a camera matrix is no rotation (determinant {turn:.4g}, its columns are "
            f"{skew:.2g} from orthonormal): give camera-to-world without scale, shear or mirroring"
        )
    return c2w
