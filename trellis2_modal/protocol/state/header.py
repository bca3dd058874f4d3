"""The state's JSON header and tensors with every type, range and length checked as they are handed out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..limits import MAX_CHANNELS, MAX_FACES, MAX_GRID, MAX_TOKENS, MAX_VERTICES, MAX_VOXELS
from . import topology
from .mesh_state import LAYOUT, bad_state

FORMAT = "trellis2-state"
VERSION = 2
"""With latents; states without are written as version 1, which older readers know."""


class Header:
    """The JSON header with every member's type and range checked."""

    def __init__(self, raw: dict[str, Any]) -> None:
        if raw.get("format") != FORMAT:
            raise bad_state("format", f"is {str(raw.get('format'))[:40]!r}, expected {FORMAT!r}")
        version = raw.get("version")
        if version not in (1, VERSION) or isinstance(version, bool):
            newer = isinstance(version, int) and version > VERSION
            hint = "made by a newer version: update this end" if newer else "not one that this version reads"
            raise bad_state("version", f"is {str(version)[:20]}, {hint}")
        self.raw = raw
        self.lossless = self._bool("lossless")
        self.voxels = self._int("voxels", 1, MAX_VOXELS)
        self.vertices = self._int("vertices", 0, MAX_VERTICES)
        self.faces = self._int("faces", 0, MAX_FACES)
        self.quads = self._int("quads", 0, self.faces // 2)
        self.linked = self._int("linked", 0, self.voxels)
        if self.linked not in (0, self.voxels) or self.linked > self.vertices:
            raise bad_state("linked", f"is {self.linked} for {self.voxels} voxels, {self.vertices} vertices")
        if self.quads and not self.linked:
            raise bad_state("quads", "are given without vertices that belong to voxels")
        grid = raw.get("grid")
        if not isinstance(grid, list) or len(grid) != 3:
            raise bad_state("grid", "is not three whole numbers")
        x, y, z = (whole("grid", n, 1, MAX_GRID) for n in grid)
        self.grid = (x, y, z)
        levels = raw.get("levels")
        self.levels = None if levels is None else whole("levels", levels, 0, topology.MAX_LEVELS)
        origin = raw.get("origin")
        if not isinstance(origin, list) or len(origin) != 3:
            raise bad_state("origin", "is not three numbers")
        ox, oy, oz = (number("origin", n, -1e6, 1e6) for n in origin)
        self.origin = (ox, oy, oz)
        self.voxel_size = number("voxel_size", raw.get("voxel_size"), 1e-6, 1e3)
        self.latents = raw.get("latents") if version > 1 else None
        if self.latents is not None:
            if not isinstance(self.latents, dict):
                raise bad_state("latents", "is not an object")
            self.tokens = whole("latents", self.latents.get("tokens"), 1, MAX_TOKENS)
            self.channels = whole("latents", self.latents.get("channels"), 1, MAX_CHANNELS)
            self.latent_resolution = whole("latents", self.latents.get("resolution"), 1, MAX_GRID)
        info = raw.get("info")
        if not isinstance(info, dict):
            raise bad_state("info", "is not an object")
        self.info: dict[str, Any] = info
        if raw.get("layout") != {name: list(span) for name, span in LAYOUT.items()}:
            raise bad_state("layout", f"is not the known one ({', '.join(LAYOUT)})")

    def _int(self, name: str, low: int, high: int) -> int:
        return whole(name, self.raw.get(name), low, high)

    def _bool(self, name: str) -> bool:
        value = self.raw.get(name)
        if not isinstance(value, bool):
            raise bad_state(name, "is not true or false")
        return value


def whole(name: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise bad_state(name, f"is {str(value)[:20]}, expected a whole number from {low} to {high}")
    return value


def number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise bad_state(name, f"is {str(value)[:20]}, expected a number from {low:g} to {high:g}")
    return float(value)


class Reader:
    """Hands out each tensor once, with the length that the header's counts ask for."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = dict(tensors)

    def take(self, name: str, dtype: str, length: int | None = None, rows: int | None = None) -> np.ndarray:
        """A tensor, taken out so that those nobody asked for remain: [length], or [rows, length].

        Raises `InvalidStateError` if it is missing or of another dtype or shape.
        """
        array = self.tensors.pop(name, None)
        if array is None:
            raise bad_state(name, "is missing")
        if array.dtype != np.dtype(dtype):
            raise bad_state(name, f"is {array.dtype}, expected {np.dtype(dtype)}")
        expected = [length] if rows is None else [rows, length]
        if length is not None and list(array.shape) != expected:
            raise bad_state(name, f"has shape {list(array.shape)}, expected {expected}")
        return array

    def finish(self) -> None:
        if self.tensors:
            raise bad_state(min(self.tensors), "is not a tensor of this format")
