"""Any mesh file as a `Scene`: GLB and 3MF by our own readers, the rest through trimesh."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import FormatError
from .glb import read_glb
from .scene import UNITS, Part, Scene
from .threemf import read_3mf

SUFFIXES = (".glb", ".obj", ".off", ".ply", ".stl", ".3mf")


def load(path: str | os.PathLike[str]) -> Scene:
    """Read a file by its suffix. Raises FormatError for what it is not or cannot be read, OSError."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(f"{file.name}: cannot check {suffix or 'a file without suffix'}: one of {SUFFIXES}")
    data = file.read_bytes()
    if suffix == ".glb":
        return read_glb(data)
    if suffix == ".3mf":
        return read_3mf(data)
    return _through_trimesh(file, suffix)


def _through_trimesh(file: Path, suffix: str) -> Scene:
    import trimesh

    try:
        found = trimesh.load_scene(str(file), process=False)
        meshes = found.dump()
    except OSError:
        raise
    except Exception as error:  # trimesh lets whatever a parser stumbles over through
        raise FormatError(f"{file.name} is no {suffix[1:]} that can be read: {error}") from error
    parts = [_part(mesh) for mesh in meshes if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    if not parts:
        raise FormatError(f"{file.name} holds no triangles")
    return Scene(parts, UNITS.get(suffix), _pictures(meshes))


def _part(mesh) -> Part:  # type: ignore[no-untyped-def]  # trimesh has no types
    uvs = getattr(mesh.visual, "uv", None)
    flipped = None if uvs is None else np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1)
    own = "vertex_normals" in mesh._cache.cache
    return Part(
        np.asarray(mesh.vertices, dtype=np.float64),
        np.asarray(mesh.faces, dtype=np.int64),
        np.asarray(mesh.vertex_normals) if own else None,
        flipped,
    )


def _pictures(meshes) -> dict[str, tuple[int, int, str]]:  # type: ignore[no-untyped-def]
    found = {}
    for mesh in meshes:
        picture = getattr(getattr(mesh.visual, "material", None), "image", None)
        if picture is not None:
            found["base_color"] = (*picture.size, (picture.format or "").lower())
    return found
