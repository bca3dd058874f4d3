"""The files: read back by other programs' rules, and by trimesh."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from o_voxel.errors import ArgumentError
from o_voxel.postprocess import GlbAsset, to_glb, topology
from o_voxel.postprocess.writers.threemf import CORE, MATERIAL
from PIL import Image

from .objects import box, decoded

trimesh = pytest.importorskip("trimesh")


def chunks(data: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


@pytest.mark.parametrize("texture_format", ["png", "webp", "jpeg"])
def test_glb_loads_in_trimesh(asset: GlbAsset, texture_format: str) -> None:
    data = asset.export(texture_format=texture_format)
    loaded = trimesh.load(io.BytesIO(data), file_type="glb", process=False)
    mesh = next(iter(loaded.geometry.values()))
    np.testing.assert_array_equal(mesh.faces, asset.faces)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), asset.vertices)
    np.testing.assert_allclose(mesh.visual.uv[:, 1], 1 - asset.uvs[:, 1], atol=1e-6)
    shown = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).astype(float)
    truth = asset.material.base_color[..., :3].astype(float)
    assert np.abs(shown - truth).mean() < (0.01 if texture_format == "png" else 4)


def test_webp_is_declared_and_png_needs_nothing(asset: GlbAsset) -> None:
    webp, _ = chunks(asset.export(extension_webp=True))
    assert webp["extensionsRequired"] == ["EXT_texture_webp"]
    assert {image["mimeType"] for image in webp["images"]} == {"image/webp"}
    png, _ = chunks(asset.export(extension_webp=False))
    assert "extensionsUsed" not in png


def test_glb_has_tangents_with_its_normal_map(asset: GlbAsset) -> None:
    document, _ = chunks(asset.export())
    assert "TANGENT" in document["meshes"][0]["primitives"][0]["attributes"]
    assert document["materials"][0]["normalTexture"]["scale"] == 1.0
    assert document["materials"][0]["alphaMode"] == "OPAQUE"


def test_obj_side_by_side_and_as_zip(asset: GlbAsset, tmp_path: Path) -> None:
    asset.export(tmp_path / "ball.obj")
    names = sorted(path.name for path in tmp_path.iterdir())
    with zipfile.ZipFile(io.BytesIO(asset.export(file_type="zip"))) as archive:
        zipped = archive.namelist()
    assert len(names) == len(zipped) == 6  # obj, mtl, base colour, roughness, metallic, normal
    loaded = trimesh.load(tmp_path / "ball.obj", process=False)
    assert len(loaded.faces) == asset.report.faces
    assert loaded.visual.material.image.size == (256, 256)
    for line in (tmp_path / "ball.mtl").read_text().splitlines():
        if line.startswith(("map_", "norm")):
            Image.open(tmp_path / line.split()[1]).verify()


def test_obj_holds_plain_names_and_pictures_that_its_readers_know(asset: GlbAsset, tmp_path: Path) -> None:
    asset.export(tmp_path / "мяч 1.obj", texture_format="webp")
    written = {path.name for path in tmp_path.iterdir()}
    library = (tmp_path / "1.mtl").read_text(encoding="ascii").splitlines()
    named = {line.split(maxsplit=1)[1] for line in library if line.startswith(("map_", "norm"))}
    assert named | {"мяч 1.obj", "1.mtl"} == written
    assert {Path(name).suffix for name in named} <= {".png", ".jpg"}
    assert {"map_Kd", "map_Pr", "map_Pm", "map_Bump", "norm"} <= {line.split()[0] for line in library}
    assert (tmp_path / "мяч 1.obj").read_text().startswith("mtllib 1.mtl\n")


def test_stl_is_a_closed_solid_z_up(asset: GlbAsset, tmp_path: Path) -> None:
    asset.export(tmp_path / "ball.stl")
    solid = trimesh.load(tmp_path / "ball.stl")
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 50**3, rel=0.03)
    assert solid.extents.max() == pytest.approx(100.0, rel=1e-6)
    np.testing.assert_allclose(solid.bounds[:, :2].sum(axis=0), 0, atol=1e-4)
    assert solid.bounds[0, 2] == pytest.approx(0.0, abs=1e-5)
    smaller = trimesh.load(io.BytesIO(asset.export(file_type="stl", size_mm=30)), file_type="stl")
    assert smaller.extents.max() == pytest.approx(30.0, rel=1e-6)
    assert asset.report.size["stl"][1] == "mm"
    assert max(asset.report.size["stl"][0]) == pytest.approx(30.0, rel=1e-6)
    assert "mm, " in asset.report.summary()


def _upright(kind: str, tmp_path: Path, arguments: dict[str, Any], **options: Any) -> np.ndarray:
    """Bounds of an asset that is taller than wide, as trimesh reads the file."""
    tall = to_glb(**arguments, decimation_target=200, texture_size=64)
    tall.export(tmp_path / f"tall.{kind}", **options)
    return trimesh.load(tmp_path / f"tall.{kind}", force="mesh", process=False).bounds


@pytest.mark.parametrize(("kind", "up"), [("glb", 1), ("obj", 1), ("ply", 2), ("stl", 2)])
def test_up_pivot_and_size_by_format(kind: str, up: int, tmp_path: Path) -> None:
    """Readers, Blender's importers among them, take y for up in glTF and OBJ, z in PLY and STL."""
    tower = decoded(box((-0.1, -0.2, -0.45), (0.3, 0.1, 0.45)), 32)
    bounds = _upright(kind, tmp_path, tower, size_m=1.8, size_mm=1.8, pivot="base")
    sides = bounds[1] - bounds[0]
    assert sides.argmax() == up
    assert sides[up] == pytest.approx(1.8, rel=1e-5)
    assert bounds[0, up] == pytest.approx(0.0, abs=1e-5)
    others = [axis for axis in range(3) if axis != up]
    np.testing.assert_allclose(bounds.sum(axis=0)[others], 0, atol=1e-5)


def test_ply_normals_turn_with_the_mesh(asset: GlbAsset) -> None:
    loaded = trimesh.load(io.BytesIO(asset.export(file_type="ply")), file_type="ply", process=False)
    away = loaded.vertices / np.linalg.norm(loaded.vertices, axis=1, keepdims=True)
    assert ((loaded.vertex_normals * away).sum(axis=1) > 0.9).all()


def test_center_and_origin(asset: GlbAsset) -> None:
    low, high = np.array(asset.report.bounding_box)
    for pivot, middle in (("center", np.zeros(3)), ("origin", (low + high) / 2)):
        data = asset.export(file_type="glb", pivot=pivot)
        bounds = trimesh.load(io.BytesIO(data), file_type="glb").bounds
        np.testing.assert_allclose(bounds.mean(axis=0), middle, atol=1e-6)


def test_ply_is_welded_and_coloured(asset: GlbAsset) -> None:
    loaded = trimesh.load(io.BytesIO(asset.export(file_type="ply")), file_type="ply", process=False)
    assert len(loaded.vertices) < asset.report.vertices
    assert topology(np.asarray(loaded.vertices), np.asarray(loaded.faces)).watertight
    assert loaded.visual.kind == "vertex"
    assert len(np.unique(loaded.visual.vertex_colors, axis=0)) > 100


def test_3mf_is_a_coloured_solid_in_millimetres(asset: GlbAsset) -> None:
    data = asset.export(file_type="3mf", size_mm=80.0)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        model = ElementTree.fromstring(archive.read("3D/3dmodel.model"))
    core, material = f"{{{CORE}}}", f"{{{MATERIAL}}}"
    assert model.attrib["unit"] == "millimeter"
    points = np.array([[float(v.attrib[k]) for k in "xyz"] for v in model.iter(f"{core}vertex")])
    corners = [
        [[int(t.attrib[k + n]) for n in "123"] for k in ("v", "p")] for t in model.iter(f"{core}triangle")
    ]
    faces, shades = np.array(corners).transpose(1, 0, 2)
    colours = [c.attrib["color"] for c in model.iter(f"{material}color")]
    np.testing.assert_allclose(np.ptp(points, axis=0).max(), 80.0, rtol=1e-4)
    np.testing.assert_allclose(points.min(axis=0), 0.0, atol=1e-6)
    assert topology(points, faces).watertight
    solid = trimesh.Trimesh(points, faces, process=False)
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 40**3, rel=0.03)
    assert len(colours) > 100
    assert shades.max() == len(colours) - 1


def test_stl_ply_and_3mf_lie_the_same_way(asset: GlbAsset) -> None:
    lopsided = replace(asset, vertices=asset.vertices * np.float32([1.0, 0.5, 0.8]))
    boxes = []
    for kind in ("stl", "ply"):
        loaded = trimesh.load(io.BytesIO(lopsided.export(file_type=kind, size_m=100)), file_type=kind)
        boxes.append(np.ptp(loaded.vertices, axis=0))
    np.testing.assert_allclose(boxes[0], boxes[1], rtol=1e-5)
    assert boxes[0].argmin() == 2  # glTF's y, the height, is their z


def test_usdz_is_stored_and_aligned(asset: GlbAsset) -> None:
    pytest.importorskip("pxr.Usd")
    data = asset.export(file_type="usdz", texture_format="webp")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0
            assert entry.compress_type == zipfile.ZIP_STORED
    assert names[0] == "asset.usdc"
    assert {Path(name).suffix for name in names[1:]} <= {".png", ".jpg"}


def test_usdz_is_sound_and_whole(asset: GlbAsset, tmp_path: Path) -> None:
    pytest.importorskip("pxr.Usd")
    from tests.opening.open_in import in_usd

    asset.export(tmp_path / "ball.usdz")
    found = in_usd(str(tmp_path / "ball.usdz"))
    assert found["problems"] == []
    assert (found["faces"], found["textures"]) == (asset.report.faces, 3)
    assert (found["up"], found["metres_per_unit"]) == ("Y", 1.0)


def test_usdz_without_its_package_says_what_to_install(
    asset: GlbAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="pip install usd-core"):
        asset.export(file_type="usdz")


def test_mesh_is_trimesh_with_material(asset: GlbAsset) -> None:
    mesh = asset.mesh
    assert isinstance(mesh, trimesh.Trimesh)
    assert mesh.visual.material.alphaMode == "OPAQUE"
    # Exported by trimesh itself, the coordinates come out as in our own file.
    theirs = trimesh.load(io.BytesIO(mesh.export(file_type="glb")), file_type="glb", process=False)
    again = next(iter(theirs.geometry.values()))
    np.testing.assert_allclose(again.visual.uv[:, 1], 1 - asset.uvs[:, 1], atol=1e-6)


def test_unknown_kind_and_scale(asset: GlbAsset) -> None:
    with pytest.raises(ArgumentError, match="fbx"):
        asset.export(file_type="fbx")
    with pytest.raises(ArgumentError, match="size"):
        asset.export(file_type="stl", size_mm=0.0)
    with pytest.raises(ArgumentError, match="size"):
        asset.export(size_m=float("nan"))
    with pytest.raises(ArgumentError, match="pivot"):
        asset.export(pivot="top")
    with pytest.raises(ArgumentError, match="tiff"):
        asset.export(texture_format="tiff")


def test_report_knows_the_sizes(asset: GlbAsset) -> None:
    size = len(asset.export())
    assert asset.report.bytes["glb"] == size
    text = json.dumps(asset.report.to_dict())
    assert json.loads(text)["faces"] == asset.report.faces
    words = asset.report.summary()
    assert "watertight, 0.0% of the visible surface inside out" in words
    assert f"{asset.report.faces:,} faces" in words
    assert "bake" in words
