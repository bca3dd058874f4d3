"""What engines take: levels of detail, a hull for collisions, and index order."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from o_voxel.check import check_file
from o_voxel.errors import ArgumentError
from o_voxel.postprocess import GlbAsset, to_glb
from o_voxel.postprocess.placement import to_z_up

from ..mesh.test_vertex_cache import misses
from .objects import colours
from .test_gltf_node import READY, assert_sound, check


@pytest.fixture(scope="module")
def chain(ball: dict[str, Any]) -> GlbAsset:
    return to_glb(**ball, decimation_target=3000, texture_size=256, normal_map=True, lods=3)


def document(data: bytes) -> dict[str, Any]:
    return json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])


def test_levels_of_detail(chain: GlbAsset, tmp_path: Path) -> None:
    assert chain.report.lods == [len(level.faces) for level in chain.lower]
    for level, budget, side in zip(chain.lower, (750, 187), (128, 64), strict=True):
        assert len(level.faces) <= 1.01 * budget
        assert level.material.base_color.shape[:2] == (side, side)
        assert level.report.watertight
    chain.export(tmp_path / "chain.glb")
    described = document((tmp_path / "chain.glb").read_bytes())
    first = described["nodes"][0]
    assert first["extensions"]["MSFT_lod"]["ids"] == [1, 2]
    assert [node["name"] for node in described["nodes"]] == ["asset_LOD0", "asset_LOD1", "asset_LOD2"]
    named = document(chain.export(file_type="glb", name="red mug"))
    assert {part["name"] for part in (named["nodes"][0], named["meshes"][0])} == {"red mug_LOD0"}
    coverage = first["extras"]["MSFT_screencoverage"]
    assert len(coverage) == 3
    assert coverage == sorted(coverage, reverse=True)
    assert described["scenes"][0]["nodes"] == [0], "who does not know the extension draws one level"
    found = check_file(tmp_path / "chain.glb")
    assert found.quality.faces == chain.report.faces
    assert found.scene.lods == chain.report.lods
    assert found.sound, found.faults


def test_levels_have_the_colours_of_the_first(chain: GlbAsset) -> None:
    for level in (chain, *chain.lower):
        texture = level.material.base_color
        row, column = (
            np.clip(level.uvs[:, k] * len(texture), 0, len(texture) - 1).astype(int) for k in (1, 0)
        )
        true = colours(torch.from_numpy(to_z_up(level.vertices))).numpy() * 255
        assert np.abs(texture[row, column, :3] - true).mean() < 8


def test_hull_and_placement_of_all_levels(chain: GlbAsset, tmp_path: Path) -> None:
    chain.export(tmp_path / "game.glb", size_m=2.0, pivot="base", collision=True)
    data = (tmp_path / "game.glb").read_bytes()
    described = document(data)
    shape = described["extensions"]["OMI_physics_shape"]["shapes"][0]
    assert shape["type"] == "convex"
    assert described["nodes"][0]["extensions"]["OMI_physics_body"]["collider"] == {"shape": 0}
    for mesh in described["meshes"]:
        accessor = described["accessors"][mesh["primitives"][0]["attributes"]["POSITION"]]
        assert accessor["max"][1] - accessor["min"][1] == pytest.approx(2.0, rel=0.1)
        assert accessor["min"][1] == pytest.approx(0.0, abs=0.05)
    assert check_file(tmp_path / "game.glb").scene.colliders == 1
    shown = trimesh.load(io.BytesIO(data), file_type="glb")
    assert sum(len(mesh.faces) for mesh in shown.dump()) == chain.report.faces, "the hull is not drawn"


@pytest.mark.node
@pytest.mark.skipif(not READY, reason="needs node, and `npm ci` in tests/node")
def test_three_and_the_validator(chain: GlbAsset, tmp_path: Path) -> None:
    chain.export(tmp_path / "game.glb", collision=True)
    mesh = assert_sound(check([tmp_path / "game.glb"])[0])
    assert mesh["triangles"] == chain.report.faces


def test_indices_are_in_the_order_of_a_vertex_cache(chain: GlbAsset) -> None:
    faces = torch.from_numpy(chain.faces)
    assert misses(faces) < 0.85
    first = np.unique(chain.faces.reshape(-1), return_index=True)[1]
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize("lods", [0, 7])
def test_too_many_levels(ball: dict[str, Any], lods: int) -> None:
    with pytest.raises(ArgumentError, match="lods"):
        to_glb(**ball, lods=lods)
