"""What the measure of a mesh says of meshes whose faults are known."""

from __future__ import annotations

import math

import pytest
import torch
from o_voxel.mesh.quality import mesh_quality

from .shapes import Mesh, bow_tie, cube, fan, join, mesh, mobius, sheet, sphere


def moved(part: Mesh, by: float) -> Mesh:
    return part[0] + torch.tensor([by, 0.0, 0.0]), part[1]


def inverted(part: Mesh) -> Mesh:
    return part[0], part[1][:, [0, 2, 1]]


def cut_apart(part: Mesh) -> Mesh:
    """Each face with corners of its own, as seams leave them."""
    return part[0][part[1].long()].reshape(-1, 3), torch.arange(3 * len(part[1])).reshape(-1, 3).int()


@pytest.mark.parametrize("body", [cube(), sphere(), cut_apart(cube())])
def test_a_body_is_solid(body: Mesh) -> None:
    found = mesh_quality(*body)
    assert found.solid
    assert (found.components, found.crumbs, found.zero_area_faces) == (1, 0, 0)
    assert (found.back_pixels, found.inside_out) == (0.0, 0.0)


def test_lengths_are_mesh_units() -> None:
    found = mesh_quality(*cube(2.0))
    assert found.volume == pytest.approx(8.0)
    assert found.area == pytest.approx(24.0)
    assert found.size == (2.0, 2.0, 2.0)


def test_inside_out() -> None:
    found = mesh_quality(*inverted(cube()))
    assert found.closed
    assert found.manifold
    assert not found.solid
    assert found.volume == pytest.approx(-1.0)
    assert (found.back_pixels, found.inside_out) == (1.0, 1.0)


def test_one_of_two_bodies_inside_out() -> None:
    found = mesh_quality(*join(cube(), moved(inverted(cube()), 3.0)))
    assert found.components == 2
    assert found.inside_out == pytest.approx(0.5)
    assert 0.4 < found.back_pixels < 0.6


def test_open_sheet() -> None:
    found = mesh_quality(*sheet(cells=4, size=1.0))
    assert (found.open_edges, found.closed) == (16, False)
    assert found.open_length == pytest.approx(4.0)
    assert found.back_pixels == pytest.approx(0.5, abs=0.02)


def test_what_is_not_manifold() -> None:
    tie, blades, strip = (mesh_quality(*part, look=False) for part in (bow_tie(), fan(), mobius()))
    assert (tie.bow_tie_vertices, tie.crowded_edges, tie.solid) == (1, 0, False)
    assert (blades.crowded_edges, blades.bow_tie_vertices, blades.manifold) == (1, 0, False)
    assert (strip.twisted_edges, strip.manifold, strip.solid) == (1, True, False)


def test_sliver_and_crumb() -> None:
    sliver = mesh([[0, 0, 0], [1, 0, 0], [0.5, 1e-9, 0]], [[0, 1, 2]])
    found = mesh_quality(*join(cube(), moved(sliver, 3.0)), look=False)
    assert (found.zero_area_faces, found.crumbs) == (1, 1)


def test_nothing_at_all() -> None:
    found = mesh_quality(torch.zeros((0, 3)), torch.zeros((0, 3), dtype=torch.int32))
    assert (found.faces, found.closed, found.solid) == (0, False, False)


def test_not_looked_at_is_not_a_number() -> None:
    found = mesh_quality(*cube(), look=False)
    assert math.isnan(found.back_pixels)
    assert found.to_dict()["back_pixels"] is None
    assert found.to_dict()["solid"] is True
