"""Camera files of several views: a JSON list of matrices, or NeRF's transforms.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...protocol.errors import FieldError, InvalidRequestError


def read_cameras(path: Path, pictures: Sequence[Path]) -> dict[str, Any]:
    """The settings `views` (camera-to-world matrices in the order of `pictures`) and, where the file has it,
    `fov` in degrees.

    Frames of a transforms.json are found by the pictures' names, else taken in their order; `mesh_scale` is
    the factor from its lengths to a cube of side 1. Raises `InvalidRequestError`.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
        if isinstance(raw, list):
            return {"views": raw}
        frames = _in_order(raw["frames"], pictures)
        scale = float(raw.get("mesh_scale", 1.0))
        matrices = [_scaled(frame["transform_matrix"], scale) for frame in frames]
        angles = {frame.get("camera_angle_x", raw.get("camera_angle_x")) for frame in frames}
        if len(angles) > 1:
            raise _bad(f"{path.name} has views of different camera_angle_x; one lens for all is taken")
        (angle,) = angles
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _bad(
            f"{path.name} is neither a JSON list of camera-to-world matrices nor a transforms.json "
            f"({type(error).__name__}: {error})"
        ) from error
    return {"views": matrices} | ({} if angle is None else {"fov": math.degrees(angle)})


def _in_order(frames: list[dict[str, Any]], pictures: Sequence[Path]) -> list[dict[str, Any]]:
    named = {Path(str(frame.get("file_path", ""))).stem: frame for frame in frames}
    wanted = [picture.stem for picture in pictures]
    if len(set(wanted)) == len(wanted) and set(wanted) <= named.keys():
        return [named[name] for name in wanted]
    if len(frames) != len(pictures):
        raise _bad(f"{len(pictures)} pictures, but the camera file has {len(frames)} frames of other names")
    return frames


def _scaled(matrix: list[list[float]], scale: float) -> list[list[float]]:
    """Lengths in units of the cube's side: only the position has any."""
    return [[*row[:3], row[3] * (scale if i < 3 else 1.0)] for i, row in enumerate(matrix)]


def _bad(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, errors=[FieldError("views", message)])
