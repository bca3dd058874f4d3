"""The binary glTF 2.0 writer: a mesh a level of detail, a material each (two where parts are see-through),
pictures
inside.

Our own, because tangents, WebP with a fallback and byte-exact accessors matter more than a general exporter.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .encode import MIME_TYPES
from .material import Material
from .translucency import parts_by_alpha

_FLOAT, _U16, _U32 = 5126, 5123, 5125
_ARRAY, _ELEMENTS = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071


class _Binary:
    """The BIN chunk as it grows, with the views and accessors that point into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(entry | ({"target": target} if target else {}))
        self.data += data
        return len(self.views) - 1

    def accessor(
        self, array: np.ndarray, kind: str, component: int, target: int, bounds: bool = False
    ) -> int:
        entry: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(array).tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


@dataclass(frozen=True)
class Level:
    """What is drawn at one distance, in glTF's frame (y up; v down): vertices and normals [V, 3], uvs [V, 2],
    tangents [V, 4]. Where only some faces are `see_through` [F], the others get an opaque material."""

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    tangents: np.ndarray | None
    see_through: np.ndarray | None
    material: Material


def write_glb(
    levels: Sequence[Level], texture_format: str, hull: tuple[np.ndarray, np.ndarray] | None = None
) -> bytes:
    """GLB bytes of one level, or of several from fine to coarse (MSFT_lod), with a convex `hull` (vertices
    [H, 3] and faces) for collisions (OMI_physics_shape). Viewers that know neither draw the first level.

    WebP is required through EXT_texture_webp, without a fallback picture (which would double the file).
    """
    binary = _Binary()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "o-voxel"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [],
        "meshes": [],
        "materials": [],
        "textures": [],
        "images": [],
        "samplers": [
            {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
        ],
    }
    for number, level in enumerate(levels):
        name = f"asset_LOD{number}" if len(levels) > 1 else "asset"
        document["nodes"].append({"mesh": number, "name": name})
        _add_mesh(document, binary, level, texture_format, name)
    used = {"EXT_texture_webp"} if any("extensions" in texture for texture in document["textures"]) else set()
    required = sorted(used)
    if len(levels) > 1:
        used.add("MSFT_lod")
        first = document["nodes"][0]
        first["extensions"] = {"MSFT_lod": {"ids": list(range(1, len(levels)))}}
        first["extras"] = {"MSFT_screencoverage": _coverage(len(levels))}
    if hull is not None:
        used |= {"OMI_physics_shape", "OMI_physics_body"}
        _add_hull(document, binary, *hull)
    if used:
        document["extensionsUsed"] = sorted(used)
    if required:
        document["extensionsRequired"] = required
    document |= {
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data) + (-len(binary.data) % 4)}],
    }
    return _container(document, bytes(binary.data))


def _add_mesh(
    document: dict[str, Any], binary: _Binary, level: Level, texture_format: str, name: str
) -> None:
    parts = parts_by_alpha(level.vertices, level.faces, level.see_through, level.material)
    attributes = {
        "POSITION": binary.accessor(level.vertices.astype(np.float32), "VEC3", _FLOAT, _ARRAY, bounds=True),
        "NORMAL": binary.accessor(level.normals.astype(np.float32), "VEC3", _FLOAT, _ARRAY),
        "TEXCOORD_0": binary.accessor(level.uvs.astype(np.float32), "VEC2", _FLOAT, _ARRAY),
    }
    if level.tangents is not None:
        attributes["TANGENT"] = binary.accessor(level.tangents.astype(np.float32), "VEC4", _FLOAT, _ARRAY)
    primitives = [
        {
            "attributes": attributes,
            "indices": _indices(binary, part, len(level.vertices)),
            "material": len(document["materials"]) + number,
        }
        for number, (_, part) in enumerate(parts)
    ]
    document["meshes"].append({"name": name, "primitives": primitives})
    pictures = level.material.encoded(texture_format)
    first = len(document["textures"])
    places = {picture: first + k for k, picture in enumerate(pictures)}
    for picture, (kind, data) in pictures.items():
        document["textures"].append(_texture(len(document["images"]), kind))
        document["images"].append(
            {"name": picture, "mimeType": MIME_TYPES[kind], "bufferView": binary.view(data)}
        )
    document["materials"] += [_material(level.material, mode, places) for mode, _ in parts]


def _indices(binary: _Binary, faces: np.ndarray, vertices: int) -> int:
    small = vertices <= 65535
    indices = faces.reshape(-1).astype(np.uint16 if small else np.uint32)
    return binary.accessor(indices, "SCALAR", _U16 if small else _U32, _ELEMENTS)


def _coverage(levels: int) -> list[float]:
    """Share of the screen's area down to which each level is drawn: a level has a quarter of the faces and
    texels
    of the one before, so it serves a quarter of the pixels."""
    return [0.25**k / 4 for k in range(levels - 1)] + [0.0]


def _add_hull(document: dict[str, Any], binary: _Binary, vertices: np.ndarray, faces: np.ndarray) -> None:
    """A convex shape on the first node. Its mesh is in no scene: nothing draws it."""
    attributes = {"POSITION": binary.accessor(vertices, "VEC3", _FLOAT, _ARRAY, bounds=True)}
    primitive = {"attributes": attributes, "indices": _indices(binary, faces, len(vertices))}
    shape = {"type": "convex", "convex": {"mesh": len(document["meshes"])}}
    document["meshes"].append({"name": "UCX_asset_00", "primitives": [primitive]})
    document["extensions"] = {"OMI_physics_shape": {"shapes": [shape]}}
    body = {"motion": {"type": "static"}, "collider": {"shape": 0}}
    document["nodes"][0].setdefault("extensions", {})["OMI_physics_body"] = body


def _texture(image: int, kind: str) -> dict[str, Any]:
    if kind == "webp":
        return {"sampler": 0, "extensions": {"EXT_texture_webp": {"source": image}}}
    return {"sampler": 0, "source": image}


def _material(material: Material, alpha_mode: str, textures: dict[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": "see-through" if alpha_mode == "BLEND" else "material",
        "alphaMode": alpha_mode,
        "doubleSided": material.double_sided,
        "pbrMetallicRoughness": {
            "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
            "metallicFactor": 1.0,
            "roughnessFactor": 1.0,
            "baseColorTexture": {"index": textures["base_color"]},
            "metallicRoughnessTexture": {"index": textures["metallic_roughness"]},
        },
    }
    if alpha_mode == "MASK":
        entry["alphaCutoff"] = 0.5
    if "normal" in textures:
        entry["normalTexture"] = {"index": textures["normal"], "scale": 1.0}
    return entry


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
