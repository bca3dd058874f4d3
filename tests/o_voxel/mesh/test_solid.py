"""Hollow bodies with holes get filled; what is open stays open; a base is flat."""

from __future__ import annotations

import math

import pytest
import torch
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.rebuild.solid import chamber_filling, with_flat_base

from .shapes import Mesh, cube, sheet, sphere

LATTICE = 64
"""Coarse, for speed: the walls are known to a sixtieth."""


def holed(radius: float) -> Mesh:
    """A ball of radius 0.4 without its lowest part: a hole of a given radius."""
    vertices, faces = sphere(96, 0.4)
    low = vertices[faces.long()].mean(dim=1)[:, 2] < -0.4 * math.cos(radius / 0.4)
    return vertices, faces[~low]


@pytest.mark.parametrize("hole", [0.0, 0.02, 0.045])
def test_a_ball_with_a_hole_is_filled(hole: float) -> None:
    filling = mesh_quality(*chamber_filling(*holed(hole), lattice=LATTICE), look=False)
    assert filling.solid
    assert 0.8 < filling.volume / (4 / 3 * math.pi * 0.4**3) < 1.0


def test_a_box_with_a_slit_is_filled() -> None:
    vertices, faces = cube(0.8)
    lid = (vertices[faces.long()][:, :, 2] > 0.39).all(dim=1)
    wide = torch.tensor([[-0.4, -0.4, 0.4], [0.36, -0.4, 0.4], [0.36, 0.4, 0.4], [-0.4, 0.4, 0.4]])
    open_box = (
        torch.cat([vertices, wide]),
        torch.cat([faces[~lid], torch.tensor([[8, 9, 10], [8, 10, 11]]).int()]),
    )
    filling = mesh_quality(*chamber_filling(*open_box, lattice=LATTICE), look=False)
    assert 0.75 < filling.volume / 0.8**3 < 1.0


def test_what_is_open_stays_open() -> None:
    vertices, faces = sphere(48, 0.4)
    bowl = vertices, faces[vertices[faces.long()].mean(dim=1)[:, 2] < 0.1]
    for body in (bowl, sheet()):
        assert len(chamber_filling(*body, lattice=LATTICE)[1]) == 0


def test_a_flat_base() -> None:
    vertices, faces = sphere(48, 0.5)
    flat = with_flat_base(vertices, 0.02)
    found = mesh_quality(flat, faces, look=False)
    assert found.closed
    assert found.size[2] == pytest.approx(0.98, abs=1e-3)
    lowest = flat[flat[:, 2] <= flat[:, 2].min() + 1e-6]
    assert lowest[:, :2].norm(dim=1).max() > 0.1
