"""Hollow bodies with holes become full ones; a base is flat."""

from __future__ import annotations

import math

import pytest
import torch
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.rebuild.rebuild import rebuild
from o_voxel.mesh.rebuild.solid import with_flat_base

from .shapes import Mesh, cube, sphere

STEP = 1 / 64


def holed(radius: float) -> Mesh:
    """A ball of radius 0.4 without its lowest part: a hole of a given radius."""
    vertices, faces = sphere(96, 0.4)
    low = vertices[faces.long()].mean(dim=1)[:, 2] < -0.4 * math.cos(radius / 0.4)
    return vertices, faces[~low]


@pytest.mark.parametrize("hole", [0.0, 0.02, 0.045])
def test_a_ball_with_a_hole_is_filled(hole: float) -> None:
    full = mesh_quality(*rebuild(*holed(hole), STEP), look=False)
    assert full.solid
    assert full.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.02)


def test_a_box_with_a_slit_is_filled() -> None:
    vertices, faces = cube(0.8)
    lid = (vertices[faces.long()][:, :, 2] > 0.39).all(dim=1)
    wide = torch.tensor([[-0.4, -0.4, 0.4], [0.36, -0.4, 0.4], [0.36, 0.4, 0.4], [-0.4, 0.4, 0.4]])
    open_box = (
        torch.cat([vertices, wide]),
        torch.cat([faces[~lid], torch.tensor([[8, 9, 10], [8, 10, 11]]).int()]),
    )
    full = mesh_quality(*rebuild(*open_box, STEP), look=False)
    assert full.solid
    assert full.volume == pytest.approx(0.8**3, rel=0.02)


def test_a_flat_base() -> None:
    vertices, faces = sphere(48, 0.5)
    flat = with_flat_base(vertices, 0.02)
    found = mesh_quality(flat, faces, look=False)
    assert found.closed
    assert found.size[2] == pytest.approx(0.98, abs=1e-3)
    lowest = flat[flat[:, 2] <= flat[:, 2].min() + 1e-6]
    assert lowest[:, :2].norm(dim=1).max() > 0.1
