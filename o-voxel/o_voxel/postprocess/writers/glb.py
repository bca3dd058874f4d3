"""The binary glTF 2.0 writer: a mesh a level of detail, a material each (two where parts are see-through),
pictures inside.

Our own, because tangents, compression and byte-exact accessors matter more than a general exporter.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..material import Material
from ..textures.encode import MIME_TYPES
from ..translucency import parts_by_alpha
from .gltf_mesh import TRANSFORM, Binary, Part, Written, draco_mesh, plain_mesh, quantised_mesh

_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071
SAMPLER = {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}


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
    levels: Sequence[Level],
    texture_format: str,
    hull: tuple[np.ndarray, np.ndarray] | None = None,
    compress: str = "none",
    quantize: bool = False,
    name: str = "asset",
) -> bytes:
    """GLB bytes of one level, or of several from fine to coarse (MSFT_lod), with a convex `hull` (vertices
    [H, 3] and faces) for collisions (OMI_physics_shape). Viewers that know neither draw the first level.

    WebP is required through EXT_texture_webp, without a fallback picture (which would double the file).
    `compress`: none, meshopt (EXT_meshopt_compression) or draco (KHR_draco_mesh_compression); `quantize`
    (KHR_mesh_quantization) halves the arrays of none. All of these lose less than a pixel shows. `name` is
    what programs call the object and its mesh.
    """
    binary = Binary()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "o-voxel"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [],
        "meshes": [],
        "materials": [],
        "textures": [],
        "images": [],
        "samplers": [SAMPLER],
    }
    used: set[str] = set()
    with ThreadPoolExecutor(len(levels)) as pool:  # pictures are encoded while arrays are written
        pictures = [pool.submit(level.material.encoded, texture_format) for level in levels]
        for number, level in enumerate(levels):
            level_name = f"{name}_LOD{number}" if len(levels) > 1 else name
            mesh = _mesh(binary, level, compress, quantize)
            document["nodes"].append({"mesh": number, "name": level_name} | mesh.node)
            _add_mesh(document, binary, mesh, level.material, pictures[number].result(), level_name)
            used |= set(mesh.extensions)
    if any("extensions" in texture for texture in document["textures"]):
        used.add("EXT_texture_webp")
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
        "buffers": binary.buffers(),
    }
    return glb_container(document, binary.data)


def _mesh(binary: Binary, level: Level, compress: str, quantize: bool) -> Written:
    attributes = {"POSITION": level.vertices, "NORMAL": level.normals, "TEXCOORD_0": level.uvs}
    if level.tangents is not None:
        attributes["TANGENT"] = level.tangents
    found = parts_by_alpha(level.vertices, level.faces, level.see_through, level.material)
    parts = [Part(faces, mode) for mode, faces in found]
    if compress == "draco":
        return draco_mesh(binary, attributes, parts)
    if compress == "meshopt" or quantize:
        return quantised_mesh(binary, attributes, parts, compress == "meshopt")
    return plain_mesh(binary, attributes, parts)


def _add_mesh(
    document: dict[str, Any],
    binary: Binary,
    mesh: Written,
    material: Material,
    pictures: dict[str, tuple[str, bytes]],
    name: str,
) -> None:
    first = len(document["materials"])
    primitives = [part | {"material": first + number} for number, part in enumerate(mesh.primitives)]
    document["meshes"].append({"name": name, "primitives": primitives})
    first = len(document["textures"])
    places = {picture: first + k for k, picture in enumerate(pictures)}
    for picture, (kind, data) in pictures.items():
        document["textures"].append(texture_entry(len(document["images"]), kind))
        document["images"].append(
            {"name": picture, "mimeType": MIME_TYPES[kind], "bufferView": binary.view(data)}
        )
    document["materials"] += [
        material_entry(material, mode, places, mesh.uv_scale) for mode in mesh.alpha_modes
    ]


def _coverage(levels: int) -> list[float]:
    """Share of the screen's area down to which each level is drawn: a level has a quarter of the faces and
    texels
    of the one before, so it serves a quarter of the pixels."""
    return [0.25**k / 4 for k in range(levels - 1)] + [0.0]


def _add_hull(document: dict[str, Any], binary: Binary, vertices: np.ndarray, faces: np.ndarray) -> None:
    """A convex shape on the first node. Its mesh is in no scene: nothing draws it."""
    node = document["nodes"][0]  # a quantised mesh's node scales what hangs on it
    vertices = (vertices - node.get("translation", 0.0)) / node.get("scale", 1.0)
    (primitive,) = plain_mesh(binary, {"POSITION": vertices}, [Part(faces, "OPAQUE")]).primitives
    shape = {"type": "convex", "convex": {"mesh": len(document["meshes"])}}
    document["meshes"].append({"name": "UCX_asset_00", "primitives": [primitive]})
    document["extensions"] = {"OMI_physics_shape": {"shapes": [shape]}}
    body = {"motion": {"type": "static"}, "collider": {"shape": 0}}
    document["nodes"][0].setdefault("extensions", {})["OMI_physics_body"] = body


def texture_entry(image: int, kind: str) -> dict[str, Any]:
    if kind == "webp":
        return {"sampler": 0, "extensions": {"EXT_texture_webp": {"source": image}}}
    return {"sampler": 0, "source": image}


def material_entry(
    material: Material, alpha_mode: str, textures: dict[str, int], uv_scale: float
) -> dict[str, Any]:
    transform = {} if uv_scale == 1 else {"extensions": {TRANSFORM: {"scale": [uv_scale, uv_scale]}}}

    def texture(name: str, **members: Any) -> dict[str, Any]:
        return {"index": textures[name], **members, **transform}

    entry: dict[str, Any] = {
        "name": "see-through" if alpha_mode == "BLEND" else "material",
        "alphaMode": alpha_mode,
        "doubleSided": material.double_sided,
        "pbrMetallicRoughness": {
            "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
            "metallicFactor": 1.0,
            "roughnessFactor": 1.0,
            "baseColorTexture": texture("base_color"),
            "metallicRoughnessTexture": texture("metallic_roughness"),
        },
    }
    if alpha_mode == "MASK":
        entry["alphaCutoff"] = 0.5
    if material.occluded:
        entry["occlusionTexture"] = texture("metallic_roughness")
    if "normal" in textures:
        entry["normalTexture"] = texture("normal", scale=1.0)
    return entry


def glb_container(document: dict[str, Any], binary: bytes | bytearray) -> bytes:
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    padding = b"\0" * (-len(binary) % 4)
    size = len(binary) + len(padding)
    header = struct.pack("<4sIII4s", b"glTF", 2, 12 + 8 + len(text) + 8 + size, len(text), b"JSON")
    return b"".join([header, text, struct.pack("<I4s", size, b"BIN\0"), binary, padding])
