"""The Khronos validator and three.js' own loader on every kind of GLB that we write."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from o_voxel.postprocess import GlbAsset, to_glb

from trellis2_modal.protocol.presets import PRESETS, PresetName
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.service.exporter import arguments

from .objects import attributes, box, decoded, sphere
from .test_bad_input import soup

NODE = Path(__file__).parents[2] / "node"
READY = shutil.which("node") is not None and (NODE / "node_modules" / "gltf-validator").is_dir()
pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(not READY, reason="needs node, and `npm ci` in tests/node"),
]


def check(files: list[Path]) -> list[dict[str, Any]]:
    command = ["node", str(NODE / "check.mjs"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_sound(result: dict[str, Any], parts: int = 1) -> dict[str, Any]:
    assert result["validator"]["errors"] == 0, result["validator"]["messages"]
    assert result["validator"]["warnings"] == 0, result["validator"]["messages"]
    assert "error" not in result["three"], result["three"]
    assert len(result["three"]["meshes"]) == parts
    return result["three"]["meshes"][0]


def test_every_texture_format(asset: GlbAsset, tmp_path: Path) -> None:
    formats = ["png", "webp", "jpeg"]
    files = [tmp_path / f"{name}.glb" for name in formats]
    for name, file in zip(formats, files, strict=True):
        asset.export(file, texture_format=name)
    for name, result in zip(formats, check(files), strict=True):
        mesh = assert_sound(result)
        assert mesh["triangles"] == asset.report.faces
        assert mesh["attributes"] == ["normal", "position", "tangent", "uv"]
        assert mesh["maps"] == ["map", "metalnessMap", "roughnessMap", "normalMap"]
        assert {picture["type"] for picture in result["three"]["pictures"]} == {f"image/{name}"}


def test_packed_occlusion(asset: GlbAsset, tmp_path: Path) -> None:
    replace(asset, material=replace(asset.material, occluded=True)).export(tmp_path / "orm.glb")
    (result,) = check([tmp_path / "orm.glb"])
    assert assert_sound(result)["maps"] == ["map", "metalnessMap", "roughnessMap", "normalMap", "aoMap"]
    assert len(result["three"]["pictures"]) == 3, "occlusion, roughness and metalness are one picture"


@pytest.mark.parametrize(
    "options",
    [{"quantize": True}, {"compress": "meshopt"}, {"compress": "draco"}],
    ids=["16 bit", "meshopt", "draco"],
)
def test_small_geometry_is_the_same_geometry(
    asset: GlbAsset, options: dict[str, Any], tmp_path: Path
) -> None:
    if options.get("compress") == "draco":
        pytest.importorskip("DracoPy")
    plain, small = tmp_path / "plain.glb", tmp_path / "small.glb"
    asset.export(plain)
    asset.export(small, **options)
    geometry = [file.stat().st_size - len_of_pictures(asset) for file in (plain, small)]
    assert geometry[1] < 0.65 * geometry[0]
    exact, packed = check([plain, small])
    assert packed["validator"]["errors"] == 0, packed["validator"]["messages"]
    assert "error" not in packed["three"], packed["three"]
    (a,), (b,) = exact["three"]["meshes"], packed["three"]["meshes"]
    assert a["triangles"] == b["triangles"]
    assert b["area"] == pytest.approx(a["area"], rel=1e-3)
    np.testing.assert_allclose(b["box"], a["box"], atol=1e-4)
    assert {"normal", "position", "uv"} <= set(b["attributes"])
    assert a["maps"] == b["maps"]


def len_of_pictures(asset: GlbAsset) -> int:
    return sum(len(data) for _, data in asset.material.encoded(asset.texture_format).values())


@pytest.mark.parametrize("compress", ["meshopt", "draco"])
def test_see_through_parts_are_compressed_in_their_order(
    globe_arguments: dict[str, Any], compress: str, tmp_path: Path
) -> None:
    if compress == "draco":
        pytest.importorskip("DracoPy")
    asset = to_glb(**globe_arguments, decimation_target=3000, texture_size=128)
    asset.export(tmp_path / "plain.glb")
    asset.export(tmp_path / "small.glb", compress=compress)
    exact, packed = check([tmp_path / "plain.glb", tmp_path / "small.glb"])
    assert "error" not in packed["three"], packed["three"]
    for a, b in zip(exact["three"]["meshes"], packed["three"]["meshes"], strict=True):
        assert (a["triangles"], a["transparent"]) == (b["triangles"], b["transparent"])
        assert b["area"] == pytest.approx(a["area"], rel=1e-3)
        # the first face drawn, by its middle: a blended part is seen in this order
        if b["transparent"]:
            np.testing.assert_allclose(b["first"], a["first"], atol=1e-3)


def test_transparency_and_sides(tmp_path: Path) -> None:
    glass = decoded(sphere(), 32, lambda points: attributes(points, alpha=0.5))
    files = []
    for mode in ("auto", "mask", "opaque"):
        files.append(tmp_path / f"{mode}.glb")
        asset = to_glb(**glass, decimation_target=500, texture_size=64, alpha_mode=mode, remesh=False)
        asset.export(files[-1])
    blend, mask, opaque = (assert_sound(result) for result in check(files))
    assert blend["transparent"]
    assert (mask["transparent"], mask["alphaTest"]) == (False, 0.5)
    assert (opaque["transparent"], opaque["alphaTest"]) == (False, 0)
    assert blend["doubleSided"]


def test_solid_behind_glass(globe_arguments: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for remesh in (False, True):
        files.append(tmp_path / f"{remesh}.glb")
        to_glb(**globe_arguments, decimation_target=3000, texture_size=128, remesh=remesh).export(files[-1])
    for result in check(files):
        assert not assert_sound(result, parts=2)["transparent"]
        assert result["three"]["meshes"][1]["transparent"]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(ball: dict[str, Any], preset: PresetName, tmp_path: Path) -> None:
    file = tmp_path / "asset.glb"
    settings = ExtractSettings(simplify=preset, texture_size=256).resolved()
    to_glb(**ball, **arguments(settings, to_glb)).export(file)
    mesh = assert_sound(check([file])[0])
    assert ("normalMap" in mesh["maps"]) == settings.normal_map


def test_odd_meshes(tmp_path: Path) -> None:
    import torch

    generator = torch.Generator().manual_seed(3)
    points = torch.rand((40, 3), generator=generator) - 0.5
    tangle = torch.randint(0, 40, (120, 3), generator=generator)
    files = []
    for k, source in enumerate(
        (
            soup(points, tangle),
            soup(points[:3], torch.tensor([[0, 1, 2]])),
            decoded(box((-0.4, -0.4, -0.01), (0.4, 0.4, 0.01)), 32),
        )
    ):
        files.append(tmp_path / f"{k}.glb")
        to_glb(**source, decimation_target=500, texture_size=64, normal_map=True).export(files[-1])
    remeshed = decoded(sphere(), 32)
    files.append(tmp_path / "remeshed.glb")
    to_glb(**remeshed, decimation_target=500, texture_size=64, remesh=True).export(files[-1])
    for result in check(files):
        assert_sound(result)
