"""Where environments come from: a studio made in code, or an HDR or EXR file."""

from __future__ import annotations

import logging
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from trellis2.errors import InvalidArgumentError, InvalidImageError
from trellis2.renderers.environment.cubemap import latlong_directions
from trellis2.renderers.environment.envmap import EnvMap

_log = logging.getLogger(__name__)

EXR_MAGIC = b"\x76\x2f\x31\x01"

FOREST = Path(__file__).resolve().parents[3] / "assets" / "hdri" / "forest.exr"

# Soft boxes: azimuth and elevation of the centre, half width and half height (degrees), radiance, warmth.
SOFT_BOXES = (
    (50.0, 40.0, 24.0, 18.0, 5.5, 0.05),  # key
    (-70.0, 15.0, 12.0, 34.0, 2.6, -0.04),  # fill, a tall strip
    (165.0, 36.0, 26.0, 14.0, 4.0, 0.0),  # rim
    (-140.0, 8.0, 7.0, 38.0, 3.0, 0.0),  # rim, a thin strip
    (0.0, 88.0, 20.0, 20.0, 2.0, 0.02),  # overhead
)


def studio(height: int = 256) -> torch.Tensor:
    """A photographer's studio, latitude-longitude [height, 2 height, 3] linear HDR.

    A neutral room that brightens upwards over a darker floor, with five soft boxes whose edges fall off
    smoothly.
    """
    directions = latlong_directions(height, 2 * height)
    up = directions[..., 2]
    wall = 0.26 + 0.24 * torch.sigmoid(6.0 * (up + 0.05)) + 0.10 * up.clamp(min=0.0)
    floor_glow = 0.12 * torch.exp(-((up + 0.35) ** 2) / 0.08)
    room = (wall + floor_glow)[..., None] * torch.tensor([0.98, 1.0, 1.03])
    for azimuth, elevation, half_width, half_height, radiance, warmth in SOFT_BOXES:
        box = _soft_box(directions, azimuth, elevation, half_width, half_height)
        tint = torch.tensor([1.0 + warmth, 1.0, 1.0 - warmth])
        room = room + radiance * box[..., None] * tint
    return room


def _soft_box(
    directions: torch.Tensor, azimuth: float, elevation: float, half_width: float, half_height: float
) -> torch.Tensor:
    """[...] 0..1: a rectangle on the plane in front of its centre direction."""
    a, e = math.radians(azimuth), math.radians(elevation)
    centre = torch.tensor([math.cos(e) * math.sin(a), math.cos(e) * math.cos(a), math.sin(e)])
    right = torch.tensor([math.cos(a), -math.sin(a), 0.0])
    upward = torch.linalg.cross(right, centre)
    ahead = (directions @ centre).clamp(min=1e-3)
    x = (directions @ right) / ahead / math.tan(math.radians(half_width))
    y = (directions @ upward) / ahead / math.tan(math.radians(half_height))
    # a rounded rectangle: the 6-norm; bright to the rim, then a quick smooth fall
    distance = (x.abs() ** 6 + y.abs() ** 6 + 1e-12) ** (1.0 / 6.0)
    rim = ((1.12 - distance) / 0.24).clamp(0.0, 1.0)
    glow = rim * rim * (3.0 - 2.0 * rim)
    return torch.where(directions @ centre > 1e-3, glow, 0.0)


def read_hdr(path: str | os.PathLike[str]) -> torch.Tensor:
    """A .hdr or .exr latitude-longitude picture as [H, W, 3] float32 linear RGB.

    Through OpenCV; builds of it without EXR (the wheels of version 5) need the package `OpenEXR` for .exr.
    Raises InvalidImageError when the file is missing or cannot be read as such.
    """
    path = Path(path)
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InvalidImageError(f"environment {path.name} cannot be read: {error.strerror}") from error
    image = _decode_opencv(data)
    if image is None and bytes(data[:4]) == EXR_MAGIC:
        image = _decode_openexr(path)
    if image is None:
        raise InvalidImageError(f"environment {path.name} is not an HDR or EXR picture that can be decoded")
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))


def _decode_opencv(data: np.ndarray) -> np.ndarray | None:
    """[H, W, 3] linear RGB, or None for what this OpenCV cannot decode to floats."""
    # OpenCV asks for this once, when it first meets an EXR file
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    except cv2.error as error:
        _log.debug("OpenCV: %s", error)
        return None
    return None if image is None or image.dtype != np.float32 else image[..., ::-1]


def _decode_openexr(path: Path) -> np.ndarray:
    try:
        import OpenEXR
    except ImportError as error:
        raise InvalidImageError(
            f"environment {path.name}: this OpenCV has no EXR decoder; pip install OpenEXR, or use an .hdr"
        ) from error
    try:
        channels = OpenEXR.File(str(path)).channels()
        for name in ("RGB", "RGBA"):
            if name in channels:
                return channels[name].pixels[..., :3]
        return np.stack([channels[c].pixels for c in "RGB"], -1)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InvalidImageError(f"environment {path.name} is a damaged or unusual EXR: {error}") from error


def load_envmap(path: str | os.PathLike[str], reference_quirks: bool = False) -> EnvMap:
    """The environment in a .hdr or .exr file. Raises InvalidImageError."""
    return EnvMap(read_hdr(path), reference_quirks)


def default_envmap(name: str = "auto", device: torch.device | str = "cpu") -> EnvMap:
    """`studio`, `forest` (assets/hdri/forest.exr), or `auto`: the forest where its file is there, else the
    studio.

    The same object for the same arguments, so that it is prepared once a process.
    """
    if name not in ("auto", "studio", "forest"):
        raise InvalidArgumentError(f"unknown environment {name!r}: auto, studio or forest")
    return _default(name, torch.device(device))


@lru_cache(maxsize=4)
def _default(name: str, device: torch.device) -> EnvMap:
    if name == "forest" or (name == "auto" and FOREST.exists()):
        try:
            return load_envmap(FOREST).to(device)
        except InvalidImageError as error:
            if name == "forest":
                raise
            # a preview must not fail for want of a decoder
            _log.warning("%s; the studio is used instead", error)
    return EnvMap(studio().to(device))
