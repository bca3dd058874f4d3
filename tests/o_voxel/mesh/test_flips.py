"""Flips even out triangles; surface, creases and closedness stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.simplification.flips import even_out, evenness
from o_voxel.mesh.simplification.simplify import simplify
from o_voxel.mesh.spatial.bvh import TriangleBVH
from torch import Tensor

from .shapes import cube, is_oriented, mobius, sheet, sphere, tetrahedron


def subdivided(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Each face cut in three at a point near one of its sides: slivers all over, on the same surface."""
    corners = points[faces.long()]
    middle = (corners * torch.tensor([0.47, 0.47, 0.06])[:, None]).sum(dim=1)
    new = len(points) + torch.arange(len(faces))
    a, b, c = faces.long().unbind(dim=1)
    cut = [torch.stack(rows, dim=1) for rows in ((a, b, new), (b, c, new), (c, a, new))]
    return torch.cat([points, middle]), torch.cat(cut).int()


def test_slivers_on_a_cube_go_and_the_cube_stays() -> None:
    points, faces = subdivided(*subdivided(*cube()))
    made = even_out(points, faces)
    assert made.dtype == torch.int32
    assert made.shape == faces.shape
    assert evenness(points, made).mean() > 1.2 * evenness(points, faces).mean()
    before, after = (mesh_quality(points, f, look=False) for f in (faces, made))
    assert after.solid
    assert after.volume == pytest.approx(before.volume, abs=1e-6)
    assert after.area == pytest.approx(before.area, abs=1e-5)


def test_evenness_of_known_triangles() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 0.75**0.5, 0], [0.5, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    torch.testing.assert_close(
        evenness(points, faces).float(), torch.tensor([1.0, 0.0, 3**0.5 / 2]), atol=1e-6, rtol=0
    )


def test_a_simplified_body_is_more_even_at_the_same_distance() -> None:
    points, faces = sphere(48)
    points = points.sign() * points.abs().clamp(max=0.25)  # a ball with six flat sides
    few = simplify(points, faces, 500)
    made = even_out(*few)
    shape = [float(evenness(few[0], f).quantile(0.1)) for f in (few[1], made)]
    assert shape[1] > 1.1 * shape[0]
    away = [float(TriangleBVH(few[0], f).closest(points).distance.mean()) for f in (few[1], made)]
    assert away[1] < 1.1 * away[0]


@pytest.mark.parametrize("mesh", [tetrahedron(), cube(), mobius(), sheet(1)])
def test_nothing_to_gain_changes_nothing(mesh: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(even_out(*mesh), mesh[1])


def test_no_faces() -> None:
    assert even_out(torch.zeros((0, 3)), torch.zeros((0, 3), dtype=torch.int32)).shape == (0, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.03))
def test_a_bumpy_solid_stays_one(seed: int, bumps: float) -> None:
    points, faces = sphere(10)
    points = points + bumps * torch.randn(points.shape, generator=torch.Generator().manual_seed(seed))
    made = even_out(points, faces)
    found = mesh_quality(points, made, look=False)
    assert (found.open_edges, found.crowded_edges, found.bow_tie_vertices, found.twisted_edges) == (
        0,
        0,
        0,
        0,
    )
    assert is_oriented(made)
    assert float(evenness(points, made).min()) >= float(evenness(points, faces).min()) - 1e-9
