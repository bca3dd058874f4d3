"""Bytes of a GLB, OBJ, PLY or STL to a `MeshFile`; what the bytes are is read off them, not off a name."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from ..check.glb import GlbFile, glb_chunks
from ..errors import FormatError, MeshError
from .mesh_file import MeshFile, Surface, new_file

MESH_FORMATS = ("glb", "obj", "ply", "stl")
MOST_FACES = 2_000_000
DRACO = "KHR_draco_mesh_compression"


def read_mesh(data: bytes, kind: str, most_faces: int = MOST_FACES) -> MeshFile:
    """The mesh in a file of `kind` (one of MESH_FORMATS).

    Textures are neither decoded nor kept. Raises FormatError for bytes that are no such file or hold no
    triangles, MeshError for a coordinate that is not finite or more than `most_faces` triangles.
    """
    if kind not in MESH_FORMATS:
        raise FormatError(f"{kind} is not read here: one of {', '.join(MESH_FORMATS)}")
    file = _read_glb(data, most_faces) if kind == "glb" else _through_trimesh(data, kind, most_faces)
    for surface in file.surfaces:
        used = np.unique(surface.faces)
        if not np.isfinite(surface.vertices[used]).all():
            raise MeshError("the mesh has a vertex that is not finite (NaN or infinity)")
        if np.abs(surface.vertices[used]).max() > 1e30:
            raise MeshError("the mesh has a vertex further than 1e30 from the origin")
        if surface.uvs is not None and not np.isfinite(surface.uvs[used]).all():
            raise MeshError("the mesh has a texture coordinate that is not finite (NaN or infinity)")
    return file


def _read_glb(data: bytes, most_faces: int) -> MeshFile:
    try:
        glb = GlbFile(*glb_chunks(data))
        _refuse_draco(glb.document)
        surfaces, count, left = [], 0, 0
        for primitive, transform in glb.drawn():
            if primitive.get("mode", 4) not in (4, 5, 6) or "POSITION" not in primitive["attributes"]:
                left += 1
                continue
            count += _declared_faces(glb.document, primitive)
            if count > most_faces:
                raise _too_many(count, most_faces)
            surface = _surface(glb, primitive, transform)
            if len(surface.faces):
                surfaces.append(surface)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        struct.error,
        RecursionError,
    ) as error:
        if isinstance(error, (FormatError, MeshError)):
            raise
        raise FormatError(f"the GLB is invalid or corrupted: {type(error).__name__} {error}") from error
    if not surfaces:
        raise FormatError("the GLB shows no triangles")
    notes = [f"{left} parts of points or lines stay without a texture"] if left else []
    return MeshFile(glb, surfaces, notes)


def _too_many(count: int, most: int) -> MeshError:
    return MeshError(f"the mesh has {count:,} faces, the most is {most:,}; simplify it first")


def _refuse_draco(document: dict[str, Any]) -> None:
    if DRACO in {*document.get("extensionsRequired", ()), *document.get("extensionsUsed", ())}:
        raise FormatError(
            f"the GLB is compressed with Draco ({DRACO}), which keeps no exact positions; unpack "
            "it first, for instance with: gltf-transform copy IN.glb OUT.glb"
        )


def _declared_faces(document: dict[str, Any], primitive: dict[str, Any]) -> int:
    """Triangles of a primitive, before anything of it is read."""
    corners = document["accessors"][primitive.get("indices", primitive["attributes"]["POSITION"])]["count"]
    points = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
    if type(corners) is not int or type(points) is not int or min(corners, points) < 0:
        raise FormatError("an accessor's count is no whole number")
    faces = corners // 3 if primitive.get("mode", 4) == 4 else corners
    return max(faces, points // 3)


def _surface(glb: GlbFile, primitive: dict[str, Any], transform: np.ndarray) -> Surface:
    points = glb.accessor(primitive["attributes"]["POSITION"])
    faces = glb.faces(primitive, len(points))
    if points.shape[1] != 3:
        raise FormatError("a position has not three coordinates")
    if len(faces) and faces.max() >= len(points):
        raise FormatError(f"index {faces.max()} of a primitive with {len(points)} vertices")
    if np.linalg.det(transform[:3, :3]) < 0:
        faces = faces[:, [0, 2, 1]]
    name = f"TEXCOORD_{_texture_info(glb.document, primitive).get('texCoord', 0)}"
    uvs = None
    if name in primitive["attributes"]:
        uvs = glb.accessor(primitive["attributes"][name])
        if uvs.shape != (len(points), 2):
            raise FormatError(f"{name} has {list(uvs.shape)} values for {len(points)} vertices")
        uvs = glb.uvs(primitive, uvs.astype(np.float64)).astype(np.float32)
    vertices = points.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]
    return Surface(vertices, faces, uvs, primitive.get("material"))


def _texture_info(document: dict[str, Any], primitive: dict[str, Any]) -> dict[str, Any]:
    """How the primitive's base colour is read: which texture coordinates, and how they are transformed."""
    if "material" not in primitive:
        return {}
    entry = document["materials"][primitive["material"]]
    info: dict[str, Any] = entry.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
    move = info.get("extensions", {}).get("KHR_texture_transform", {})
    return info | ({"texCoord": move["texCoord"]} if "texCoord" in move else {})


# --- what is no GLB -----------------------------------------------------------------------------------------


def _through_trimesh(data: bytes, kind: str, most_faces: int) -> MeshFile:
    import trimesh

    count = _announced(data, kind)
    if count > most_faces:
        raise _too_many(count, most_faces)
    try:
        options: dict[str, Any] = {"split_objects": False, "group_material": True} if kind == "obj" else {}
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=kind, process=False, skip_materials=True, **options
        )
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)]
    except MemoryError:
        raise
    except Exception as error:  # trimesh lets whatever a parser stumbles over through
        raise FormatError(f"the bytes are no {kind.upper()} that can be read: {error}") from error
    if not meshes:
        raise FormatError(f"the {kind.upper()} holds no triangles")
    if (count := sum(len(mesh.faces) for mesh in meshes)) > most_faces:
        raise _too_many(count, most_faces)
    surfaces, normals = [], []
    for number, mesh in enumerate(meshes):
        faces = np.asarray(mesh.faces, dtype=np.int64)
        if faces.min() < 0 or faces.max() >= len(mesh.vertices):
            raise FormatError(f"a face names vertex {faces.max()} of {len(mesh.vertices)}")
        uvs = getattr(mesh.visual, "uv", None)
        if uvs is not None:
            uvs = np.stack([uvs[:, 0], 1 - uvs[:, 1]], axis=1).astype(np.float32)
        vertices = np.asarray(mesh.vertices, dtype=np.float64)
        surfaces.append(Surface(vertices, faces, uvs, number))
        normals.append(np.asarray(mesh.vertex_normals) if "vertex_normals" in mesh._cache.cache else None)
    return new_file(surfaces, normals, True, [])


def _announced(data: bytes, kind: str) -> int:
    """Faces that a file announces, at least, before a parser believes it."""
    if kind == "stl":
        binary = len(data) >= 84 and 84 + 50 * struct.unpack_from("<I", data, 80)[0] == len(data)
        return struct.unpack_from("<I", data, 80)[0] if binary else data.count(b"endfacet")
    if kind == "obj":
        return data.count(b"\nf ") + data.count(b"\nf\t")
    header = data[: data.find(b"end_header") + 1][: 64 << 10]
    counts = [line.split()[-1] for line in header.splitlines() if line.startswith(b"element ")]
    if not all(word.isdigit() for word in counts):
        raise FormatError("the PLY's header announces a count that is no number")
    return max((int(word) for word in counts), default=0) // 3
