"""The binary glTF 2.0 writer: one mesh, one material (two where parts are see-through), pictures inside.

Our own, because tangents, WebP with a fallback and byte-exact accessors matter more than a general exporter.
"""

from __future__ import annotations

import json
import struct
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


def write_glb(
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    uvs: np.ndarray,
    tangents: np.ndarray | None,
    see_through: np.ndarray | None,
    material: Material,
    texture_format: str,
) -> bytes:
    """GLB bytes. Arrays are in glTF's frame (y up; v down): vertices and normals [V, 3], uvs [V, 2],
    tangents [V, 4]. Where only some faces are `see_through` [F], the others get an opaque material.

    WebP is required through EXT_texture_webp, without a fallback picture (which would double the file).
    """
    binary = _Binary()
    small = len(vertices) <= 65535
    attributes = {
        "POSITION": binary.accessor(vertices.astype(np.float32), "VEC3", _FLOAT, _ARRAY, bounds=True),
        "NORMAL": binary.accessor(normals.astype(np.float32), "VEC3", _FLOAT, _ARRAY),
        "TEXCOORD_0": binary.accessor(uvs.astype(np.float32), "VEC2", _FLOAT, _ARRAY),
    }
    if tangents is not None:
        attributes["TANGENT"] = binary.accessor(tangents.astype(np.float32), "VEC4", _FLOAT, _ARRAY)
    parts = parts_by_alpha(vertices, faces, see_through, material)
    primitives = []
    for number, (_, part) in enumerate(parts):
        indices = part.reshape(-1).astype(np.uint16 if small else np.uint32)
        index = binary.accessor(indices, "SCALAR", _U16 if small else _U32, _ELEMENTS)
        primitives.append({"attributes": attributes, "indices": index, "material": number})

    pictures = material.encoded(texture_format)
    names = list(pictures)
    images = [
        {"name": name, "mimeType": MIME_TYPES[kind], "bufferView": binary.view(data)}
        for name, (kind, data) in pictures.items()
    ]
    textures = [_texture(k, pictures[name][0]) for k, name in enumerate(names)]
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "o-voxel"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset"}],
        "meshes": [{"primitives": primitives}],
        "materials": [_material(material, mode, names) for mode, _ in parts],
        "textures": textures,
        "images": images,
        "samplers": [
            {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
        ],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data) + (-len(binary.data) % 4)}],
    }
    if any(kind == "webp" for kind, _ in pictures.values()):
        document |= {"extensionsUsed": ["EXT_texture_webp"], "extensionsRequired": ["EXT_texture_webp"]}
    return _container(document, bytes(binary.data))


def _texture(image: int, kind: str) -> dict[str, Any]:
    if kind == "webp":
        return {"sampler": 0, "extensions": {"EXT_texture_webp": {"source": image}}}
    return {"sampler": 0, "source": image}


def _material(material: Material, alpha_mode: str, names: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": "see-through" if alpha_mode == "BLEND" else "material",
        "alphaMode": alpha_mode,
        "doubleSided": material.double_sided,
        "pbrMetallicRoughness": {
            "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
            "metallicFactor": 1.0,
            "roughnessFactor": 1.0,
            "baseColorTexture": {"index": names.index("base_color")},
            "metallicRoughnessTexture": {"index": names.index("metallic_roughness")},
        },
    }
    if alpha_mode == "MASK":
        entry["alphaCutoff"] = 0.5
    if "normal" in names:
        entry["normalTexture"] = {"index": names.index("normal"), "scale": 1.0}
    return entry


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
