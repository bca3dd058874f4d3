"""The judge against files of another writer (trimesh) with faults put in by hand, and against our own."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from o_voxel.check import check_file
from o_voxel.errors import FormatError
from o_voxel.postprocess import to_glb

from tests.o_voxel.postprocess.objects import decoded, sphere


def cube(size: float = 2.0) -> trimesh.Trimesh:
    return trimesh.creation.box((size, size, size))


def saved(mesh: Any, file: Path) -> Path:
    mesh.export(file)
    return file


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_a_sound_body_in_every_format(suffix: str, tmp_path: Path) -> None:
    found = check_file(saved(cube(), tmp_path / f"cube.{suffix}"))
    assert found.sound, found.faults
    assert found.quality.solid
    assert found.quality.volume == pytest.approx(8.0)
    assert found.quality.size == (2.0, 2.0, 2.0)
    assert found.scene.unit == {"glb": "m", "stl": "mm"}.get(suffix)


def test_a_missing_face(tmp_path: Path) -> None:
    mesh = cube()
    mesh.update_faces(np.arange(12) > 0)
    found = check_file(saved(mesh, tmp_path / "open.glb"))
    assert found.quality.open_edges == 3
    assert any("not closed: 3 open edges" in fault for fault in found.faults)


def test_inside_out(tmp_path: Path) -> None:
    mesh = cube()
    mesh.invert()
    found = check_file(saved(mesh, tmp_path / "inverted.glb"))
    assert found.quality.inside_out == 1.0
    assert any(fault.startswith("inside out: 100%") for fault in found.faults)
    assert "  inside out: 100.0% of the visible surface" in found.lines()


def test_transforms_and_instances(tmp_path: Path) -> None:
    """A scene's own units: two copies of a cube, one mirrored, which turns its winding round."""
    scene = trimesh.Scene()
    scene.add_geometry(cube(1.0), geom_name="cube", transform=np.diag([2.0, 1, 1, 1]))
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 5
    scene.add_geometry(cube(1.0), geom_name="other", transform=mirrored)
    found = check_file(saved(scene, tmp_path / "scene.glb"))
    assert found.sound, found.faults
    assert found.quality.components == 2
    assert found.quality.volume == pytest.approx(3.0)
    assert found.quality.size == pytest.approx((6.5, 1.0, 1.0))


def rewritten(file: Path, change: Any) -> Path:
    """The GLB with its JSON changed."""
    data = file.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + data[20 + length :]
    file.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    return file


def test_normals_against_their_faces(tmp_path: Path) -> None:
    mesh = cube()
    normals = np.array(mesh.vertex_normals)
    normals[0] *= -1
    turned = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=normals, process=False)
    around = int((mesh.faces == 0).any(axis=1).sum())
    data = trimesh.exchange.gltf.export_glb(turned, include_normals=True)
    (tmp_path / "turned.glb").write_bytes(data)
    found = check_file(tmp_path / "turned.glb")
    assert found.normals_against == around
    assert any("shade black" in fault for fault in found.faults)


def test_our_own_file(tmp_path: Path) -> None:
    asset = to_glb(
        **decoded(sphere(), 32), decimation_target=800, texture_size=128, remesh=True, normal_map=True
    )
    asset.export(tmp_path / "ball.glb", texture_format="webp")
    found = check_file(tmp_path / "ball.glb")
    assert found.sound, found.faults
    assert found.quality.faces == asset.report.faces
    assert found.charts == asset.report.charts
    assert found.atlas_use == pytest.approx(asset.report.atlas_use, abs=0.1)
    assert found.scene.textures["normal"] == (128, 128, "webp")
    assert set(found.scene.textures) == {"base_color", "metallic_roughness", "normal"}
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.lines()[0] == "ball.glb: sound"


def test_helpers_for_engines_are_not_judged(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(cube(1.0), geom_name="asset")
    broken = cube(1.5)
    broken.update_faces(np.arange(12) > 3)
    scene.add_geometry(broken, geom_name="UCX_asset_00", node_name="UCX_asset_00")
    scene.add_geometry(broken, geom_name="asset_LOD1", node_name="asset_LOD1")
    found = check_file(saved(scene, tmp_path / "game.glb"))
    assert found.sound, found.faults
    assert found.scene.colliders == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["accessors"][0].update(count=10**9),
        lambda d: d["accessors"][0].update(bufferView=99),
        lambda d: d["bufferViews"][0].update(byteLength=10**9),
        lambda d: d["nodes"][0].update(children=[0]),
        lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"),
        lambda d: d["bufferViews"][0].update(
            extensions={
                "EXT_meshopt_compression": {
                    "buffer": 0, "byteLength": 64, "byteStride": 12, "count": 8, "mode": "ATTRIBUTES"
                }
            }
        ),
        lambda d: d["meshes"][0]["primitives"][0].update(
            extensions={"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
        ),
        lambda d: d.update(nodes={}),
    ],
)  # fmt: skip
def test_hostile_documents(change: Any, tmp_path: Path) -> None:
    file = rewritten(saved(cube(), tmp_path / "cube.glb"), change)
    with pytest.raises(FormatError):
        check_file(file)


@pytest.mark.parametrize("data", [b"", b"glTF", b"glTF" + b"\xff" * 40, b"solid nothing"])
@pytest.mark.parametrize("suffix", ["glb", "stl", "obj", "ply", "3mf"])
def test_what_is_no_mesh(data: bytes, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"bad.{suffix}"
    file.write_bytes(data)
    with pytest.raises(FormatError):
        check_file(file)


def test_other_suffixes_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"\.doc"):
        check_file(tmp_path / "a.doc")


def test_strips_fans_and_sparse_values(tmp_path: Path) -> None:
    """A square as a strip and as a fan, and one corner moved by a sparse accessor."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
    moved = np.array([[2, 2, 0]], "<f4")
    binary = points.tobytes() + np.array([0, 1, 3, 2], "<u2").tobytes() + moved.tobytes() + b"\x03\0\0\0"
    views = [(0, 48), (48, 8), (56, 12), (68, 2)]
    corner = {
        "count": 1,
        "indices": {"bufferView": 3, "componentType": 5123},
        "values": {"bufferView": 2},
    }
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0, 1, 2]}],
        "nodes": [{"mesh": 0}, {"mesh": 1, "translation": [3, 0, 0]}, {"mesh": 2, "translation": [6, 0, 0]}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0}, "mode": 5}]},
            {"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": 6}]},
            {"primitives": [{"attributes": {"POSITION": 2}, "mode": 5}]},
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 4, "type": "SCALAR"},
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "sparse": corner},
        ],
        "bufferViews": [{"buffer": 0, "byteOffset": o, "byteLength": n} for o, n in views],
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    body += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    file = tmp_path / "strips.glb"
    file.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    found = check_file(file).quality
    assert (found.faces, found.components, found.twisted_edges) == (6, 3, 0)
    assert found.size == (8.0, 2.0, 0.0)
    assert found.area == pytest.approx(1 + 1 + 2)


def test_a_point_that_is_not_finite(tmp_path: Path) -> None:
    mesh = trimesh.Trimesh(np.array([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]), [[0, 1, 2]], process=False)
    from o_voxel.errors import MeshError

    with pytest.raises(MeshError):
        check_file(saved(mesh, tmp_path / "nan.ply"))


def test_textured_file_counts_charts(tmp_path: Path) -> None:
    """Two triangles of a square that lie apart on the atlas are two charts."""
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    vertices = square[[0, 1, 2, 0, 2, 3]].numpy()
    uv = np.array([[0, 0], [0.5, 0], [0.5, 0.5], [0.5, 0.5], [1, 1], [0.5, 1]])
    image = trimesh.visual.texture.TextureVisuals(uv=uv)
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], visual=image, process=False)
    found = check_file(saved(mesh, tmp_path / "square.glb"))
    assert found.charts == 2
    assert found.atlas_use == pytest.approx(0.25, abs=0.01)
    assert found.quality.open_edges == 4


@pytest.mark.parametrize("compress", ["draco", "meshopt"])
def test_a_compressed_file_is_judged_as_the_plain_one(compress: str, tmp_path: Path) -> None:
    if compress == "draco":
        pytest.importorskip("DracoPy")
    asset = to_glb(**decoded(sphere(0.4), 32), decimation_target=800, texture_size=64, normal_map=True)
    found = {}
    for way in ("none", compress):
        asset.export(tmp_path / f"{way}.glb", compress=way)
        found[way] = check_file(tmp_path / f"{way}.glb")
    plain, packed = found["none"], found[compress]
    assert packed.bytes < plain.bytes
    assert packed.sound, packed.faults
    assert (packed.quality.faces, packed.charts) == (plain.quality.faces, plain.charts)
    assert packed.quality.volume == pytest.approx(plain.quality.volume, rel=2e-3)
    assert packed.atlas_use == pytest.approx(plain.atlas_use, abs=0.01)
