"""Mesh files as they come in: what they are by their bytes, and what they announce, before anything parses
them."""

from __future__ import annotations

import struct
from typing import Literal

from .errors import FieldError, InvalidMeshError, TooLargeError
from .limits import MAX_MESH_BYTES, MAX_MESH_FACES, MIB

MeshKind = Literal["glb", "obj", "ply", "stl"]
MESH_KINDS: tuple[MeshKind, ...] = ("glb", "obj", "ply", "stl")

_START = 64 << 10
_STL_HEADER, _STL_FACE = 84, 50


def check_mesh(data: bytes) -> MeshKind:
    """The kind of a mesh file. Raises `TooLargeError`, and `InvalidMeshError` for what is none of MESH_KINDS,
    is cut short or announces too many faces. Nothing is decoded."""
    if len(data) > MAX_MESH_BYTES:
        raise TooLargeError(f"the mesh has {len(data) / MIB:.0f} MiB, the most is {MAX_MESH_BYTES // MIB}")
    kind = mesh_kind(data)
    if kind == "glb":
        _check_glb(data)
    if (faces := announced_faces(data, kind)) > MAX_MESH_FACES:
        raise bad_mesh(f"has {faces:,} faces, the most is {MAX_MESH_FACES:,}; simplify it first")
    return kind


def mesh_kind(data: bytes) -> MeshKind:
    """What a file is, by its bytes. Raises `InvalidMeshError`."""
    start = data[:_START]
    if start[:4] == b"glTF":
        return "glb"
    if start[:4] == b"PK\x03\x04":
        raise bad_mesh("is a zip archive; send the file inside it")
    if start[:3] == b"ply" and start[3:4] in (b"\n", b"\r"):
        return "ply"
    if start.lstrip()[:1] == b"{":
        raise bad_mesh("is JSON (.gltf keeps its data in other files); send a .glb, which has all in one")
    if len(data) >= _STL_HEADER and _STL_HEADER + _STL_FACE * _stl_faces(data) == len(data):
        return "stl"
    if b"\0" not in start:
        if start.lstrip()[:5] == b"solid" and b"facet" in start:
            return "stl"
        if any(line.split()[:1] == [b"v"] for line in start.splitlines()):
            return "obj"
    raise bad_mesh("is empty" if not data else f"is none of {', '.join(MESH_KINDS).upper()}")


def announced_faces(data: bytes, kind: MeshKind) -> int:
    """Faces that a file says or shows that it has; 0 where only a parser can tell."""
    if kind == "stl":
        binary = len(data) >= _STL_HEADER and _STL_HEADER + _STL_FACE * _stl_faces(data) == len(data)
        return _stl_faces(data) if binary else data.count(b"endfacet")
    if kind == "obj":
        return data.count(b"\nf ") + data.count(b"\nf\t")
    if kind == "ply":
        for line in data[:_START].split(b"end_header")[0].splitlines():
            words = line.split()
            if words[:2] == [b"element", b"face"] and len(words) == 3:
                if not words[2].isdigit() or len(words[2]) > 12:
                    raise bad_mesh("announces a number of faces that is none")
                return int(words[2])
    return 0


def _stl_faces(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 80)[0])


def _check_glb(data: bytes) -> None:
    if len(data) < 20:
        raise bad_mesh("is a GLB that is cut short")
    version, length, chunk = struct.unpack_from("<III", data, 4)
    if version != 2:
        raise bad_mesh(f"is glTF of version {version}; version 2 is read")
    if length > len(data) or 20 + chunk > length:
        raise bad_mesh(f"is a GLB that is cut short: {len(data)} of {max(length, 20 + chunk)} bytes")


def bad_mesh(message: str) -> InvalidMeshError:
    return InvalidMeshError(f"the mesh {message}", errors=[FieldError("mesh", message)])
