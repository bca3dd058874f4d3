"""What a mesh file holds: triangle parts in one frame, and what the file says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

UNITS = {".glb": "m", ".stl": "mm", ".3mf": "mm"}
"""What the format's definition or its readers take a length of 1 for; the others have no unit."""


@dataclass(frozen=True)
class Part:
    """Triangles that share a material, in the scene's frame: `vertices` [V, 3] and, where the file has them,
    unit `normals` [V, 3], `uvs` [V, 2] (v down); `faces` [F, 3] int64."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    uvs: np.ndarray | None = None
    material: int | None = None


@dataclass(frozen=True)
class Scene:
    """What a file shows, and what it says of itself. `lods` are the face counts of further levels of detail,
    `colliders` the number of collision shapes, `textures` role to (width, height, format)."""

    parts: list[Part]
    unit: str | None
    textures: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    alpha_modes: list[str] = field(default_factory=list)
    double_sided: bool = False
    lods: list[int] = field(default_factory=list)
    colliders: int = 0
