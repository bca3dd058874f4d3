"""Mesh files as bytes, made by hand."""

from __future__ import annotations

import json
import struct
from typing import Any


def mesh_glb(uvs: bool = True, **changes: Any) -> bytes:
    """A GLB with one square of two triangles; `changes` replace members of its document."""
    points = struct.pack("<12f", 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0)
    places = struct.pack("<8f", 0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1)
    corners = struct.pack("<6H", 0, 1, 2, 0, 2, 3)
    binary = points + places + corners
    attributes = {"POSITION": 0} | ({"TEXCOORD_0": 1} if uvs else {})
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "square", "extras": {"kept": True}}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 2}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3",
             "min": [0, 0, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 48},
            {"buffer": 0, "byteOffset": 48, "byteLength": 32},
            {"buffer": 0, "byteOffset": 80, "byteLength": 12},
        ],
        "buffers": [{"byteLength": len(binary)}],
    } | changes  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
