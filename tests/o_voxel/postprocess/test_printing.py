"""Prints: solid although the walls have holes, of the size asked for, closed by others' rules."""

from __future__ import annotations

import io
import math
from pathlib import Path

import manifold3d
import pytest
import torch
import trimesh
from o_voxel.check import check_file, load
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
    assert found.volume < 1.01 * 4 / 3 * math.pi * 50**3
    solid = trimesh.load(tmp_path / "ball.stl")
    assert solid.is_volume


def others_agree(file: Path) -> float:
    """Its volume, by which trimesh and manifold3d judge it a closed solid as `check` does."""
    assert check_file(file).quality.solid
    (part,) = load(file).parts
    solid = trimesh.Trimesh(part.vertices, part.faces, process=True)
    assert solid.is_volume
    made = manifold3d.Manifold(manifold3d.Mesh(solid.vertices.astype("f4"), solid.faces.astype("u4")))
    assert made.status() == manifold3d.Error.NoError
    assert made.volume() == pytest.approx(solid.volume, rel=1e-3)
    return float(made.volume())


@pytest.mark.parametrize("kind", ["stl", "3mf"])
def test_others_agree_that_a_box_is_a_solid(kind: str, tmp_path: Path) -> None:
    """tests/opening/judge_solids.py asks pymeshlab, too."""
    asset = to_glb(**decoded(box((-0.3, -0.2, -0.4), (0.3, 0.2, 0.4)), 32), **PRINT)
    file = tmp_path / f"box.{kind}"
    asset.export(file)
    assert others_agree(file) == pytest.approx(75 * 50 * 100, rel=0.12)


def test_a_flat_base(tmp_path: Path) -> None:
    asset = to_glb(**decoded(sphere(0.4), 48), **PRINT, flat_base=True)
    asset.export(tmp_path / "ball.stl")
    found = check_file(tmp_path / "ball.stl").quality
    assert (found.open_edges, found.crowded_edges) == (0, 0)
    solid = trimesh.load(tmp_path / "ball.stl")
    disc = solid.vertices[solid.vertices[:, 2] < 1e-3]
    assert 8 < abs(disc[:, :2]).max() < 16


@pytest.mark.parametrize("wall", [0.0, 0.06])
def test_thin_parts_get_the_wall_that_is_asked_for(wall: float) -> None:
    """A sheet of 0.008 by 0.8: two voxels' offset alone make it 0.03 thick."""
    sheet = decoded(box((-0.4, -0.4, -0.004), (0.4, 0.4, 0.004)), 64)
    asset = to_glb(**sheet, **PRINT, wall=wall)
    solid = trimesh.load(io.BytesIO(asset.export(file_type="stl")), file_type="stl")
    assert solid.is_volume
    assert max(solid.extents) == pytest.approx(100)
    printed = asset.report.solid["stl"]
    assert printed["wall_mm"] == pytest.approx(solid.extents[2], rel=0.2)
    assert printed["volume_cm3"] == pytest.approx(solid.volume / 1000, rel=1e-3)
    if wall:
        assert 6.0 <= solid.extents[2] <= 8.0
        assert any("thickened" in note for note in asset.report.notes)
    else:
        assert solid.extents[2] < 6.0
        assert not any("thickened" in note for note in asset.report.notes)


def slit_and_pierced(kind: str) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    """A hollow body with two slits and pin holes at random, and the volume of it when filled."""
    if kind == "ball":
        vertices, faces = sphere(0.4)
        solid = 4 / 3 * math.pi * 0.4**3
    else:
        made = trimesh.creation.box((0.8, 0.6, 0.7))
        for _ in range(5):
            made = made.subdivide()
        vertices = torch.tensor(made.vertices, dtype=torch.float32)
        faces = torch.tensor(made.faces, dtype=torch.int32)
        solid = 0.8 * 0.6 * 0.7
    middle = vertices[faces.long()].mean(dim=1)
    slit = (middle[:, 0].abs() < 0.012) & (middle[:, 2] > 0)
    slit |= (middle[:, 2].abs() < 0.012) & (middle[:, 1] > 0.1)
    pins = torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) < 0.01
    return (vertices, faces[~(slit | pins)]), solid


@pytest.mark.parametrize("kind", ["ball", "box"])
def test_slits_and_pin_holes_do_not_empty_a_body(kind: str, tmp_path: Path) -> None:
    mesh, filled = slit_and_pierced(kind)
    asset = to_glb(**decoded(mesh, 64), **PRINT)
    asset.export(tmp_path / "body.stl")
    assert max(check_file(tmp_path / "body.stl").quality.size) == pytest.approx(100)
    assert others_agree(tmp_path / "body.stl") == pytest.approx(filled * (100 / 0.8) ** 3, rel=0.05)
