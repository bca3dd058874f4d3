"""A mesh file with new textures: what must stay stays bit for bit, and what cannot be painted on is
refused."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from o_voxel.check.glb import GlbFile, glb_chunks
from o_voxel.errors import FormatError, MeshError
from o_voxel.retexture import MeshFile, RetexturedAsset, read_mesh, textured
from PIL import Image

from tests.trellis2_modal.meshes import mesh_glb

trimesh = pytest.importorskip("trimesh")

RESOLUTION = 32
LAYOUT = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}


def painted(file: MeshFile, **options: Any) -> RetexturedAsset:
    """With voxels everywhere whose colour is their position: every texel must show where it lies."""
    coords = torch.cartesian_prod(*[torch.arange(RESOLUTION)] * 3).int()
    rest = torch.tensor([[0.25, 0.5, 1.0]]).expand(len(coords), 3)
    attrs = torch.cat([(coords + 0.5) / RESOLUTION, rest], 1)
    options = {"texture_size": 64} | options
    return textured(file, placed(file), coords, attrs, LAYOUT, RESOLUTION, **options)


def placed(file: MeshFile) -> Callable[[np.ndarray], np.ndarray]:
    low, high = file.vertices.min(0), file.vertices.max(0)
    return lambda vertices: (vertices - (low + high) / 2) / max((high - low).max(), 1e-9) * 0.98


def accessor_bytes(data: bytes, name: str) -> list[bytes]:
    """The stored values of an attribute, a primitive each."""
    file = GlbFile(*glb_chunks(data))
    primitives = [p for mesh in file.document["meshes"] for p in mesh["primitives"]]
    return [file.accessor(p["attributes"][name]).tobytes() for p in primitives if name in p["attributes"]]


def base_colour(data: bytes, material: int = 0) -> np.ndarray:
    file = GlbFile(*glb_chunks(data))
    entry = file.document["materials"][material]["pbrMetallicRoughness"]
    texture = file.document["textures"][entry["baseColorTexture"]["index"]]
    picture = Image.open(io.BytesIO(file.view(file.document["images"][texture["source"]]["bufferView"])))
    return np.asarray(picture.convert("RGB")).astype(float) / 255


def textured_sphere(colour: str = "red") -> Any:
    mesh = trimesh.creation.uv_sphere(count=[12, 24])
    points = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    uv = np.stack([np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) + 0.5, (points[:, 2] + 1) / 2], 1)
    picture = Image.new("RGB", (8, 8), colour)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv.clip(0, 1), image=picture)
    return mesh


@pytest.mark.parametrize("source", ["turned", "two materials", "obj", "plain"])
def test_positions_and_uvs_stay_bit_for_bit(source: str) -> None:
    if source == "turned":
        scene = trimesh.Scene()
        turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3], [0.3, 0, 0])
        scene.add_geometry(textured_sphere(), transform=turn)
        data, kind = scene.export(file_type="glb"), "glb"
    elif source == "two materials":
        scene = trimesh.Scene([textured_sphere(), textured_sphere("blue").apply_translation([3, 0, 0])])
        data, kind = scene.export(file_type="glb"), "glb"
    elif source == "obj":
        data, kind = textured_sphere().export(file_type="obj").encode(), "obj"
    else:
        data, kind = mesh_glb(), "glb"
    file = read_mesh(data, kind)
    asset = painted(file)
    out = asset.export()
    if kind == "glb":
        for name in ("POSITION", "TEXCOORD_0", "NORMAL"):
            assert accessor_bytes(out, name) == accessor_bytes(data, name)
        before, after = (GlbFile(*glb_chunks(d)).document["nodes"] for d in (data, out))
        assert before == after
    again = read_mesh(out, "glb")
    assert len(again.surfaces) == len(file.surfaces) == (2 if source == "two materials" else 1)
    for old, new in zip(file.surfaces, again.surfaces, strict=True):
        np.testing.assert_array_equal(new.faces, old.faces)
        np.testing.assert_array_equal(new.uvs, old.uvs)
        np.testing.assert_array_equal(new.vertices.astype(np.float32), old.vertices.astype(np.float32))
    # each texel that a face's centre falls on shows where that centre lies
    for number, surface in enumerate(again.surfaces):
        assert surface.uvs is not None
        centre = surface.uvs[surface.faces].mean(axis=1)
        wraps = np.ptp(surface.uvs[surface.faces, 0], axis=1) > 0.9
        column, row = (centre.T * 64).astype(int).clip(0, 63)
        shown = base_colour(out, number)[row, column]
        lies = placed(file)(surface.vertices)[surface.faces].mean(axis=1) + 0.5
        assert np.median(np.abs(shown - lies)[~wraps]) < 0.04
    assert asset.report.faces == len(file.faces)
    assert asset.report.textures


@pytest.mark.parametrize("turned", [False, True])
def test_the_report_says_how_much_is_inside_out(turned: bool) -> None:
    """Faces stay as they are, so a mesh that came inside out is still so."""
    ball = textured_sphere()
    if turned:
        ball.invert()
    asset = painted(read_mesh(ball.export(file_type="obj").encode(), "obj"))
    assert asset.report.inside_out == float(turned)


def test_what_goes_and_what_stays_in_a_glb() -> None:
    """Old pictures, vertex colours and extensions of materials go; the rest of the document stays."""
    data = mesh_glb(
        images=[{"bufferView": 1, "mimeType": "image/png"}],
        textures=[{"source": 0}],
        materials=[
            {
                "name": "wood",
                "doubleSided": True,
                "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}},
                "extensions": {"KHR_materials_clearcoat": {}},
            }
        ],
        meshes=[
            {"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 0}, "indices": 2,
                             "material": 0}]}
        ],
        extensionsUsed=["KHR_materials_clearcoat", "KHR_lights_punctual"],
    )  # fmt: skip
    document, _ = glb_chunks(painted(read_mesh(data, "glb")).export("webp"))
    (material,) = document["materials"]
    assert (material["name"], material["doubleSided"], "extensions" in material) == ("wood", True, False)
    assert document["extensionsUsed"] == ["EXT_texture_webp", "KHR_lights_punctual"]
    assert document["nodes"][0]["extras"] == {"kept": True}
    assert set(document["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "TEXCOORD_0"}
    assert len(document["images"]) == 2


@pytest.mark.parametrize("kind", ["stl", "ply", "glb"])
def test_a_mesh_without_uvs_is_unwrapped_and_keeps_its_positions(kind: str) -> None:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    data = mesh_glb(uvs=False) if kind == "glb" else mesh.export(file_type=kind)
    file = read_mesh(data, kind)
    asset = painted(file)
    (surface,) = read_mesh(asset.export(), "glb").surfaces
    assert surface.uvs is not None
    assert surface.uvs.min() >= 0
    assert surface.uvs.max() <= 1

    def corners(vertices: np.ndarray, faces: np.ndarray) -> set[bytes]:
        return {
            np.ascontiguousarray(f[f[:, 0].argsort()]).tobytes() for f in vertices.astype(np.float32)[faces]
        }

    assert corners(surface.vertices, surface.faces) == corners(file.vertices, file.faces)
    assert asset.report.charts <= len(file.faces) / 2  # corners that lie on one point are one vertex


def test_new_uvs_replace_those_of_the_file_and_overlaps_are_told() -> None:
    square = read_mesh(mesh_glb(), "glb").surfaces[0]
    twice = trimesh.Trimesh(
        np.concatenate([square.vertices, square.vertices + np.array([0, 0, 2])]),
        np.concatenate([square.faces, square.faces + 4]),
        visual=trimesh.visual.TextureVisuals(uv=np.tile(square.uvs, (2, 1))),
        process=False,
    )
    file = read_mesh(twice.export(file_type="glb"), "glb")
    (note,) = painted(file).report.notes
    assert re.match("(4[5-9]|50)% of the charts lie over others", note)
    assert not painted(file, new_uvs=True).report.notes


def stl(faces: int, value: float = 0.0) -> bytes:
    one = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, value, 0, 0, 1, 0, 0)
    return bytes(80) + struct.pack("<I", faces) + one * faces


SHARED_CHILD = {
    "nodes": [{"children": [1]}, {"children": [2]}, {"mesh": 0}],
    "scenes": [{"nodes": [0, 1]}],
}


@pytest.mark.parametrize(
    ("data", "kind", "error", "words"),
    [
        (stl(1, float("nan")), "stl", MeshError, "not finite"),
        (stl(0), "stl", FormatError, "no triangles|no STL"),
        (stl(300), "stl", MeshError, "300 faces, the most is 200"),
        (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "obj", FormatError, "no triangles|no OBJ"),
        (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "obj", FormatError, "no OBJ|names vertex"),
        (b"ply\nformat ascii 1.0\nelement face 9999999\nend_header\n", "ply", MeshError, "faces, the most"),
        (b"glTF" + bytes(40), "glb", FormatError, "version 0"),
        (mesh_glb(accessors=[]), "glb", FormatError, "invalid or corrupted"),
        (mesh_glb(scenes=[{"nodes": []}]), "glb", FormatError, "no triangles"),
        (mesh_glb(**SHARED_CHILD), "glb", FormatError, "tree"),
        (mesh_glb(extensionsRequired=["KHR_draco_mesh_compression"]), "glb", FormatError,
        "compressed.*unpack"), (
            mesh_glb(accessors=[{"componentType": 5126, "count": 1 << 30, "type": "VEC3"}] * 3),
            "glb", MeshError, "faces, the most",
        ),
    ],
)  # fmt: skip
def test_bad_meshes_are_refused_in_words(data: bytes, kind: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        read_mesh(data, kind, most_faces=200)


@pytest.mark.parametrize(
    ("uvs", "words"),
    [
        ([[0, 0], [3, 0], [3, 3], [0, 3]], "from \\(0, 0\\) to \\(3, 3\\), outside 0..1"),
        ([[0.5, 0.5]] * 4, "span no area"),
    ],
)
def test_uvs_that_cannot_be_painted_on_are_refused(uvs: list[list[float]], words: str) -> None:
    document, binary = glb_chunks(mesh_glb())
    binary = binary[:48] + np.array(uvs, np.float32).tobytes() + binary[80:]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    body += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    file = read_mesh(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body, "glb")
    with pytest.raises(MeshError, match=words):
        painted(file)
    assert painted(file, new_uvs=True).report.faces == 2
