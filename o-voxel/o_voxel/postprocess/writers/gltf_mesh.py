"""A mesh's arrays inside a glTF binary: plain, quantised, or compressed with meshopt or Draco.

Compressed files hold no tangents: viewers make the same ones (MikkTSpace) where they need any.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ArgumentError
from .meshopt import by_first_use, encode_attributes, encode_triangles, octahedral, walk_order

COMPRESSIONS = ("none", "meshopt", "draco")
QUANTIZATION, MESHOPT, DRACO, TRANSFORM = (
    "KHR_mesh_quantization",
    "EXT_meshopt_compression",
    "KHR_draco_mesh_compression",
    "KHR_texture_transform",
)

_BYTE, _U16, _U32, _FLOAT = 5120, 5123, 5125, 5126
_ARRAY, _ELEMENTS = 34962, 34963
_POSITION_BITS = 14  # of Draco's; 1/16 mm on a metre
_MESHOPT_POSITION_BITS = 13
_UV_BITS = 12  # where compressed; a quarter of a texel at 1024
_NORMAL_BITS = 8  # of Draco's


@dataclass(frozen=True)
class Part:
    """Faces [F, 3] of one material, and its glTF alpha mode."""

    faces: np.ndarray
    alpha_mode: str

    @property
    def ordered(self) -> bool:
        """Whether the order in which the faces are drawn shows."""
        return self.alpha_mode == "BLEND"


@dataclass
class Binary:
    """The BIN chunk as it grows, with the views and accessors that point into it."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    decompressed: int = 0
    """Bytes of a second buffer that exists only once a reader has undone meshopt."""

    def view(self, data: bytes, **members: Any) -> int:
        entry = {"buffer": 0, "byteOffset": self._append(data), "byteLength": len(data)}
        self.views.append(entry | members)
        return len(self.views) - 1

    def meshopt_view(
        self, data: bytes, mode: str, count: int, stride: int, target: int, **members: Any
    ) -> int:
        """The number of a buffer view of `count` times `stride` bytes that `data` holds compressed by meshopt
        (`mode`: ATTRIBUTES or TRIANGLES); uncompressed it lies in the fallback buffer, which has no bytes.
        """
        packed: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": self._append(data),
            "byteLength": len(data),
        }
        packed |= {"byteStride": stride, "mode": mode, "count": count} | members
        size = count * stride
        entry = {"buffer": 1, "byteOffset": self.decompressed, "byteLength": size, "target": target}
        if mode == "ATTRIBUTES":
            entry["byteStride"] = stride
        self.decompressed += size + -size % 4
        self.views.append(entry | {"extensions": {MESHOPT: packed}})
        return len(self.views) - 1

    def accessor(self, view: int | None, count: int, kind: str, component: int, **members: Any) -> int:
        entry: dict[str, Any] = {"componentType": component, "count": count, "type": kind}
        if view is not None:
            entry["bufferView"] = view
        self.accessors.append(entry | members)
        return len(self.accessors) - 1

    def _append(self, data: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        start = len(self.data)
        self.data += data
        return start

    def buffers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{"byteLength": len(self.data) + -len(self.data) % 4}]
        if self.decompressed:
            found.append({"byteLength": self.decompressed, "extensions": {MESHOPT: {"fallback": True}}})
        return found


@dataclass(frozen=True)
class Written:
    """What a document says of a mesh: primitives without materials, their alpha modes, the node's place,
    required extensions, and the factor from its UVs to a texture's."""

    primitives: list[dict[str, Any]]
    alpha_modes: list[str]
    node: dict[str, Any]
    extensions: tuple[str, ...]
    uv_scale: float = 1.0


def check_compression(compress: str) -> None:
    """Raises ArgumentError for one that is unknown, or needs a package that is not installed."""
    if compress not in COMPRESSIONS:
        raise ArgumentError(f"compress {compress!r}: one of {', '.join(COMPRESSIONS)}")
    if compress == "draco" and importlib.util.find_spec("DracoPy") is None:
        raise ArgumentError("compressing with draco needs the package DracoPy: pip install DracoPy")


def plain_mesh(binary: Binary, attributes: dict[str, np.ndarray], parts: Sequence[Part]) -> Written:
    """Exact floats: POSITION, NORMAL [V, 3], TEXCOORD_0 [V, 2], TANGENT [V, 4] where there."""
    found = {}
    for name, values in attributes.items():
        values = np.ascontiguousarray(values, np.float32)
        bounds = _bounds(values) if name == "POSITION" else {}
        view = binary.view(values.tobytes(), target=_ARRAY)
        found[name] = binary.accessor(view, len(values), f"VEC{values.shape[1]}", _FLOAT, **bounds)
    count = len(attributes["POSITION"])
    primitives = [_plain_primitive(binary, found, part.faces, count) for part in parts]
    return Written(primitives, [part.alpha_mode for part in parts], {}, ())


def quantised_mesh(
    binary: Binary, attributes: dict[str, np.ndarray], parts: Sequence[Part], compress: bool
) -> Written:
    """16 bits for positions and UVs, 8 for normals; with `compress` 13 and 12 through meshopt, and UVs that a
    texture transform enlarges."""
    faces = [part.faces if part.ordered or not compress else walk_order(part.faces) for part in parts]
    if compress:
        joined, order = by_first_use(np.concatenate(faces))
        attributes = {name: values[order] for name, values in attributes.items()}
        faces = np.split(joined, np.cumsum([len(f) for f in faces])[:-1])
    steps = 2 ** (_MESHOPT_POSITION_BITS if compress else 16) - 1
    uv_steps = 2 ** (_UV_BITS if compress else 16) - 1
    low, extent = _frame(attributes["POSITION"])
    columns = {
        "POSITION": (np.rint((attributes["POSITION"] - low) / extent * steps).astype(np.uint16), _U16, False),
        "NORMAL": (np.rint(attributes["NORMAL"] * 127).astype(np.int8), _BYTE, True),
        "TEXCOORD_0": (np.rint(attributes["TEXCOORD_0"].clip(0, 1) * uv_steps).astype(np.uint16), _U16, True),
    }
    if "TANGENT" in attributes and not compress:
        columns["TANGENT"] = (np.rint(attributes["TANGENT"] * 127).astype(np.int8), _BYTE, True)
    found = {}
    for name, (values, component, normalised) in columns.items():
        count, width = values.shape
        stride = -(-width * values.itemsize // 4) * 4
        padded = np.zeros((count, stride // values.itemsize), values.dtype)
        padded[:, :width] = values
        if compress:
            filtered = {}
            if name == "NORMAL":  # two numbers in place of three
                padded, filtered = octahedral(attributes[name]), {"filter": "OCTAHEDRAL"}
            stream = encode_attributes(padded.view(np.uint8))
            view = binary.meshopt_view(stream, "ATTRIBUTES", count, stride, _ARRAY, **filtered)
        else:
            view = binary.view(padded.tobytes(), byteStride=stride, target=_ARRAY)
        members: dict[str, Any] = {"normalized": True} if normalised else {}
        members |= _bounds(values) if name == "POSITION" else {}
        found[name] = binary.accessor(view, count, f"VEC{width}", component, **members)
    count = len(attributes["POSITION"])
    primitives = []
    for part in faces:
        if not compress:
            primitives.append(_plain_primitive(binary, found, part, count))
            continue
        size, component = (2, _U16) if count <= 65535 else (4, _U32)
        view = binary.meshopt_view(encode_triangles(part), "TRIANGLES", part.size, size, _ELEMENTS)
        index = binary.accessor(view, part.size, "SCALAR", component)
        primitives.append({"attributes": found, "indices": index})
    node = {"translation": low.tolist(), "scale": [extent / steps] * 3}
    extensions = (QUANTIZATION, MESHOPT, TRANSFORM) if compress else (QUANTIZATION,)
    modes = [part.alpha_mode for part in parts]
    return Written(primitives, modes, node, extensions, 65535 / uv_steps)


def draco_mesh(binary: Binary, attributes: dict[str, np.ndarray], parts: Sequence[Part]) -> Written:
    """Each part through Draco, with vertices of its own; needs DracoPy."""
    import DracoPy

    primitives = []
    for part in parts:
        used, corners = np.unique(part.faces, return_inverse=True)
        points = attributes["POSITION"][used].astype(np.float64)
        data = DracoPy.encode(
            points,
            corners.reshape(-1, 3).astype(np.uint32),
            quantization_bits=_POSITION_BITS,
            compression_level=7,
            preserve_order=part.ordered,
            normals=attributes["NORMAL"][used].astype(np.float64),
            normal_quantization_bits=_NORMAL_BITS,
            tex_coord=attributes["TEXCOORD_0"][used].astype(np.float64),
            tex_coord_quantization_bits=_UV_BITS,
        )
        made = DracoPy.decode(data)  # the encoder chooses ids and the number of points
        names = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}
        ids = {names[a["attribute_type"]]: a["unique_id"] for a in made.attributes}
        found = {}
        for name in ids:
            kind = "VEC2" if name == "TEXCOORD_0" else "VEC3"
            bounds = _bounds(np.asarray(made.points, np.float32)) if name == "POSITION" else {}
            found[name] = binary.accessor(None, len(made.points), kind, _FLOAT, **bounds)
        index = binary.accessor(None, made.faces.size, "SCALAR", _U32)
        packed = {"bufferView": binary.view(data), "attributes": ids}
        primitives.append({"attributes": found, "indices": index, "extensions": {DRACO: packed}})
    return Written(primitives, [part.alpha_mode for part in parts], {}, (DRACO,))


def _plain_primitive(
    binary: Binary, attributes: dict[str, int], faces: np.ndarray, count: int
) -> dict[str, Any]:
    component, kind = (_U16, np.uint16) if count <= 65535 else (_U32, np.uint32)
    indices = faces.reshape(-1).astype(kind)
    view = binary.view(indices.tobytes(), target=_ELEMENTS)
    return {"attributes": attributes, "indices": binary.accessor(view, len(indices), "SCALAR", component)}


def _frame(vertices: np.ndarray) -> tuple[np.ndarray, float]:
    """Lowest corner and longest side: one scale for all axes, so that normals keep their directions."""
    low = vertices.min(axis=0).astype(np.float64)
    return low, max(float(np.ptp(vertices, axis=0).max()), 1e-9)


def _bounds(values: np.ndarray) -> dict[str, Any]:
    return {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
