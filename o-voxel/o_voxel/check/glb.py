"""Binary glTF 2.0 as a viewer shows it: the default scene's triangles with their transforms applied.

Reads what the core format allows (strips, fans, sparse and quantised accessors, instanced meshes) and
meshes that meshopt compressed. Draco needs a package, which the error names. Every offset is checked.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

from ..errors import FormatError
from . import meshopt
from .scene import UNITS, Part, Scene

_DTYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MAX_DEPTH = 64
_DRACO = "KHR_draco_mesh_compression"
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_HELPERS = re.compile(r"(^UCX_|[-_](conv)?colonly$|[-_]?LOD[1-9]\d*$)", re.IGNORECASE)
"""Names by which engines know collision shapes and lower levels of detail; viewers draw them all the same."""

_ROLES = {
    "baseColorTexture": "base_color",
    "metallicRoughnessTexture": "metallic_roughness",
    "normalTexture": "normal",
    "occlusionTexture": "occlusion",
    "emissiveTexture": "emissive",
}


def read_glb(data: bytes) -> Scene:
    """Raises FormatError when the bytes are no sound GLB, hold no triangles, or need a missing package."""
    try:
        file = GlbFile(*glb_chunks(data))
        parts = list(file.scene_parts())
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"the GLB is invalid or corrupted: {type(error).__name__} {error}") from error
    if not parts:
        raise FormatError("the GLB shows no triangles")
    materials = [
        file.document["materials"][i] for i in sorted({p.material for p in parts if p.material is not None})
    ]
    return Scene(
        parts,
        UNITS[".glb"],
        file.textures(materials),
        sorted({m.get("alphaMode", "OPAQUE") for m in materials}) or ["OPAQUE"],
        any(m.get("doubleSided", False) for m in materials),
        file.lods(),
        file.colliders(),
    )


def glb_chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    if len(data) < 20 or data[:4] != b"glTF":
        raise FormatError("not a GLB: it does not begin with glTF")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise FormatError(f"glTF version {version} is not supported, only 2")
    if length > len(data):
        raise FormatError(f"the GLB is cut short: {len(data)} of {length} bytes")
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + size > length:
            raise FormatError(f"a chunk of {size} bytes reaches beyond the file's {length}")
        found.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    document = json.loads(found[b"JSON"])
    if not isinstance(document, dict):
        raise FormatError("the GLB's JSON is no object")
    return document, found.get(b"BIN\0", b"")


@dataclass
class GlbFile:
    document: dict[str, Any]
    binary: bytes
    _views: dict[int, bytes] = field(default_factory=dict, init=False)

    def scene_parts(self) -> Iterator[Part]:
        for primitive, transform in self.drawn():
            part = self._part(primitive, transform)
            if part is not None:
                yield part

    def drawn(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """The primitives of the default scene, each with its transform to the scene's frame [4, 4]; engines'
        collision shapes and lower levels of detail are left out."""
        nodes = self.document.get("nodes", [])
        scenes = self.document.get("scenes")
        if scenes:
            roots = scenes[self.document.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        seen: set[int] = set()
        for root in roots:
            yield from self._below(root, np.eye(4), 0, seen)

    def _below(
        self, index: int, above: np.ndarray, depth: int, seen: set[int]
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        if depth > _MAX_DEPTH:
            raise FormatError(f"nodes are nested more than {_MAX_DEPTH} deep, or in a circle")
        if index in seen:  # a few nodes that share children would stand for millions
            raise FormatError(f"node {index} hangs on more than one node; glTF nodes are a tree")
        seen.add(index)
        node = self.document["nodes"][index]
        transform = above @ node_matrix(node)
        if "mesh" in node:
            mesh = self.document["meshes"][node["mesh"]]
            if not any(_HELPERS.search(str(name)) for name in (node.get("name", ""), mesh.get("name", ""))):
                for primitive in mesh["primitives"]:
                    yield primitive, transform
        for child in node.get("children", []):
            yield from self._below(child, transform, depth + 1, seen)

    def _part(self, primitive: dict[str, Any], transform: np.ndarray) -> Part | None:
        attributes = primitive["attributes"]
        if "POSITION" not in attributes or primitive.get("mode", _TRIANGLES) not in (
            _TRIANGLES,
            _STRIP,
            _FAN,
        ):
            return None
        packed = primitive.get("extensions", {}).get(_DRACO)
        values, faces = self._unpacked(packed) if packed else ({}, None)
        for name in ("POSITION", "NORMAL", "TEXCOORD_0"):
            if name in attributes and name not in values:
                values[name] = self.accessor(attributes[name]).astype(np.float64)
        points = values["POSITION"]
        if faces is None:
            faces = self.faces(primitive, len(points))
        if not len(faces):
            return None
        if faces.max() >= len(points):
            raise FormatError(f"index {faces.max()} of a primitive with {len(points)} vertices")
        linear = transform[:3, :3]
        normals = uvs = None
        if "NORMAL" in values:
            turned = values["NORMAL"] @ np.linalg.pinv(linear)
            normals = turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)
        if "TEXCOORD_0" in values:
            uvs = self.uvs(primitive, values["TEXCOORD_0"])
        if np.linalg.det(linear) < 0:
            faces = faces[:, [0, 2, 1]]
        return Part(points @ linear.T + transform[:3, 3], faces, normals, uvs, primitive.get("material"))

    def _unpacked(self, packed: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Attributes [V, width] and faces [F, 3] of a primitive that Draco holds."""
        try:
            import DracoPy
        except ImportError as error:
            raise FormatError(
                f"{_DRACO}: reading it needs the package DracoPy: pip install DracoPy"
            ) from error
        try:
            mesh = DracoPy.decode(self.view(packed["bufferView"]))
        except (DracoPy.FileTypeException, RuntimeError) as error:
            raise FormatError(f"{_DRACO}: the stream is corrupted: {error}") from error
        values = {}
        for name, number in packed["attributes"].items():
            found = mesh.get_attribute_by_unique_id(number)["data"]
            values[name] = np.asarray(found, dtype=np.float64)
        return values, np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)

    def uvs(self, primitive: dict[str, Any], uvs: np.ndarray) -> np.ndarray:
        """KHR_texture_transform of the base colour applied, as quantised files need."""
        if "material" not in primitive:
            return uvs
        pbr = self.document["materials"][primitive["material"]].get("pbrMetallicRoughness", {})
        move = pbr.get("baseColorTexture", {}).get("extensions", {}).get("KHR_texture_transform")
        if not move:
            return uvs
        turn = move.get("rotation", 0.0)
        c, s = np.cos(turn), np.sin(turn)
        scaled = uvs * np.array(move.get("scale", [1.0, 1.0]))
        return scaled @ np.array([[c, -s], [s, c]]) + np.array(move.get("offset", [0.0, 0.0]))

    def faces(self, primitive: dict[str, Any], count: int) -> np.ndarray:
        if "indices" in primitive:
            index = self.accessor(primitive["indices"])[:, 0].astype(np.int64)
        else:
            index = np.arange(count)
        mode = primitive.get("mode", _TRIANGLES)
        if mode == _TRIANGLES:
            return index[: len(index) // 3 * 3].reshape(-1, 3)
        k = np.arange(max(len(index) - 2, 0))
        if mode == _STRIP:
            odd = k % 2
            return np.stack([index[k], index[k + 1 + odd], index[k + 2 - odd]], axis=1)
        return np.stack([index[k + 1], index[k + 2], np.broadcast_to(index[:1], k.shape)], axis=1)

    def accessor(self, index: int) -> np.ndarray:
        """Values [count, width]; normalised integers as floats in 0..1 or -1..1."""
        entry = self.document["accessors"][index]
        dtype, width, count = (
            np.dtype(_DTYPES[entry["componentType"]]),
            _WIDTHS[entry["type"]],
            entry["count"],
        )
        if "bufferView" in entry:
            values = self._values(entry["bufferView"], entry.get("byteOffset", 0), dtype, count, width)
        else:
            if count * width * dtype.itemsize > 1 << 32:
                raise FormatError(f"an accessor of {count} zeros")
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            sparse = entry["sparse"]
            where, what = sparse["indices"], sparse["values"]
            rows = self._values(
                where["bufferView"], where.get("byteOffset", 0), np.dtype(_DTYPES[where["componentType"]]),
                sparse["count"], 1,
            )  # fmt: skip
            values = values.copy()
            values[rows[:, 0]] = self._values(
                what["bufferView"], what.get("byteOffset", 0), dtype, sparse["count"], width
            )
        if entry.get("normalized") and dtype.kind in "iu":
            values = np.maximum(values.astype(np.float64) / np.iinfo(dtype).max, -1.0)
        return values

    def _values(self, view: int, offset: int, dtype: np.dtype, count: int, width: int) -> np.ndarray:
        entry = self.document["bufferViews"][view]
        data = self.view(view)
        row = dtype.itemsize * width
        stride = entry.get("byteStride", row)
        if (
            count < 0
            or offset < 0
            or stride < row
            or (count and offset + stride * (count - 1) + row > len(data))
        ):
            raise FormatError(f"an accessor of {count} values reaches beyond its {len(data)} bytes")
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))

    def view(self, index: int) -> bytes:
        if index not in self._views:
            entry = self.document["bufferViews"][index]
            extensions = entry.get("extensions", {})
            packed = next((extensions[name] for name in _MESHOPT if name in extensions), None)
            data = self._slice(packed or entry)
            self._views[index] = meshopt.decode(data, packed) if packed else data
        return self._views[index]

    def _slice(self, entry: dict[str, Any]) -> bytes:
        """The bytes of the binary chunk that a buffer view, or the stream that stands for it, names."""
        buffer = self.document["buffers"][entry["buffer"]]
        if entry["buffer"] != 0 or "uri" in buffer:
            raise FormatError("the GLB keeps data outside its binary chunk")
        start, length = entry.get("byteOffset", 0), entry["byteLength"]
        if start < 0 or length < 0 or start + length > len(self.binary):
            raise FormatError(f"a buffer view ends at {start + length} of {len(self.binary)} bytes")
        return self.binary[start : start + length]

    def textures(self, materials: list[dict[str, Any]]) -> dict[str, tuple[int, int, str]]:
        found: dict[str, tuple[int, int, str]] = {}
        for material in materials:
            slots = material | material.get("pbrMetallicRoughness", {})
            for slot, role in _ROLES.items():
                if slot in slots and role not in found:
                    found[role] = self._picture(slots[slot]["index"])
        return found

    def _picture(self, texture: int) -> tuple[int, int, str]:
        from PIL import Image, UnidentifiedImageError

        entry = self.document["textures"][texture]
        sources = [e["source"] for e in entry.get("extensions", {}).values() if "source" in e]
        image = self.document["images"][(sources or [entry.get("source")])[0]]
        kind = str(image.get("mimeType", "")).removeprefix("image/")
        if "bufferView" not in image:
            return 0, 0, kind or "outside the file"
        data = self.view(image["bufferView"])
        if kind == "ktx2":
            return (*struct.unpack_from("<II", data, 20), kind)
        try:
            with Image.open(BytesIO(data)) as picture:
                return (*picture.size, (picture.format or kind).lower())
        except UnidentifiedImageError as error:
            raise FormatError(f"image {image.get('name', '')} is no picture of a known kind") from error

    def lods(self) -> list[int]:
        """Faces of each further level of detail (MSFT_lod) of the first node that has some."""
        for node in self.document.get("nodes", []):
            if ids := node.get("extensions", {}).get("MSFT_lod", {}).get("ids"):
                return [sum(len(part.faces) for part in self._node_parts_of_level(i)) for i in ids]
        return []

    def _node_parts_of_level(self, index: int) -> Iterator[Part]:
        mesh = self.document["meshes"][self.document["nodes"][index]["mesh"]]
        for primitive in mesh["primitives"]:
            part = self._part(primitive, np.eye(4))
            if part is not None:
                yield part

    def colliders(self) -> int:
        shapes = self.document.get("extensions", {}).get("OMI_physics_shape", {}).get("shapes", [])
        named = [m for m in self.document.get("meshes", []) if str(m.get("name", "")).startswith("UCX_")]
        return max(len(shapes), len(named))


def node_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0.0, 0.0, 0.0, 1.0))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)))
    matrix[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
    return matrix
