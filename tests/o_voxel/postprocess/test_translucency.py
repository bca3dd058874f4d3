"""A solid thing behind glass: two materials over the same vertices, each face in one of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from o_voxel.postprocess import GlbAsset, to_glb
from o_voxel.postprocess.translucency import drawing_order

trimesh = pytest.importorskip("trimesh")

from .test_exports import chunks  # noqa: E402  (itself skipped without trimesh)

SMALL: dict[str, Any] = {"decimation_target": 3000, "texture_size": 256}


@pytest.fixture(scope="module")
def globe(globe_arguments: dict[str, Any]) -> GlbAsset:
    return to_glb(**globe_arguments, **SMALL)


def test_solid_faces_are_drawn_with_depth(globe: GlbAsset) -> None:
    assert globe.report.alpha_mode == "BLEND"
    assert globe.see_through is not None
    radius = np.linalg.norm(globe.vertices[globe.faces].mean(axis=1), axis=1)
    np.testing.assert_array_equal(globe.see_through, radius > 0.33)
    document, _ = chunks(globe.export())
    solid, glass = document["meshes"][0]["primitives"]
    assert solid["attributes"] == glass["attributes"]
    assert [m["alphaMode"] for m in document["materials"]] == ["OPAQUE", "BLEND"]
    counts = [document["accessors"][part["indices"]]["count"] // 3 for part in (solid, glass)]
    assert counts == [(~globe.see_through).sum(), globe.see_through.sum()]


def test_both_parts_load_in_trimesh(globe: GlbAsset) -> None:
    loaded = trimesh.load(io.BytesIO(globe.export()), file_type="glb", process=False)
    assert sum(len(part.faces) for part in loaded.geometry.values()) == globe.report.faces
    assert {part.visual.material.alphaMode for part in loaded.geometry.values()} == {"OPAQUE", "BLEND"}


def test_a_shell_of_glass_has_its_inner_side_first(globe_arguments: dict[str, Any]) -> None:
    """Remeshed glass is two layers; seen from anywhere, what is farther off must be drawn before."""
    asset = to_glb(**globe_arguments, **SMALL, remesh=True, remesh_project=0.0)
    assert asset.see_through is not None
    glass = asset.faces[asset.see_through]
    radius = np.linalg.norm(asset.vertices[glass[drawing_order(asset.vertices, glass)]], axis=2).max(axis=1)
    inner = radius < 0.42
    assert inner.any()
    assert inner[: inner.sum()].mean() > 0.99


@pytest.mark.parametrize("mode", ["opaque", "mask", "blend"])
def test_all_solid_stays_one_part(ball: dict[str, Any], mode: str) -> None:
    document, _ = chunks(to_glb(**ball, **SMALL, alpha_mode=mode).export())
    assert len(document["meshes"][0]["primitives"]) == 1
    assert [m["alphaMode"] for m in document["materials"]] == [mode.upper()]
