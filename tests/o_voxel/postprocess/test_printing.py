"""Prints: solid although the walls have holes, of the size asked for, closed by others' rules."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import trimesh
from o_voxel.check import check_file
from o_voxel.postprocess import to_glb

from .objects import box, decoded, sphere

PRINT = {"remesh": True, "outer_shell": True, "texture_size": 64, "decimation_target": 6000}


@pytest.mark.parametrize("hole", [0.02, 0.05])
def test_a_ball_with_a_hole_prints_solid(hole: float, tmp_path: Path) -> None:
    vertices, faces = sphere(0.4)
    low = vertices[faces.long()].mean(dim=1)[:, 2] < -0.4 * math.cos(hole / 0.4)
    asset = to_glb(**decoded((vertices, faces[~low]), 64), **PRINT)
    asset.export(tmp_path / "ball.stl")
    found = check_file(tmp_path / "ball.stl").quality
    assert (found.open_edges, found.crowded_edges) == (0, 0)
    assert max(found.size) == pytest.approx(100.0)
    assert found.volume > 0.9 * 4 / 3 * math.pi * 50**3
    assert any("filled" in note for note in asset.report.notes)
    solid = trimesh.load(tmp_path / "ball.stl")
    assert solid.is_volume


def test_manifold3d_and_pymeshlab_agree(tmp_path: Path) -> None:
    manifold3d = pytest.importorskip("manifold3d")
    asset = to_glb(**decoded(box((-0.3, -0.2, -0.4), (0.3, 0.2, 0.4)), 32), **PRINT)
    solid = trimesh.load(io.BytesIO(asset.export(tmp_path / "box.stl")), file_type="stl")
    made = manifold3d.Manifold(manifold3d.Mesh(solid.vertices.astype("f4"), solid.faces.astype("u4")))
    assert made.status() == manifold3d.Error.NoError
    assert made.volume() == pytest.approx(solid.volume, rel=1e-4)
    assert solid.volume == pytest.approx(75 * 50 * 100, rel=0.12)
    pymeshlab = pytest.importorskip("pymeshlab")
    meshes = pymeshlab.MeshSet()
    meshes.load_new_mesh(str(tmp_path / "box.stl"))
    measures = meshes.get_topological_measures()
    assert measures["is_mesh_two_manifold"]
    assert measures["boundary_edges"] == 0


def test_a_flat_base(tmp_path: Path) -> None:
    asset = to_glb(**decoded(sphere(0.4), 48), **PRINT, flat_base=True)
    asset.export(tmp_path / "ball.stl")
    found = check_file(tmp_path / "ball.stl").quality
    assert (found.open_edges, found.crowded_edges) == (0, 0)
    solid = trimesh.load(tmp_path / "ball.stl")
    disc = solid.vertices[solid.vertices[:, 2] < 1e-3]
    assert 8 < abs(disc[:, :2]).max() < 16
