"""Unwrapping: every face gets a place of its own in the atlas, hardly distorted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.mesh.charts.flatten import signed_areas
from o_voxel.mesh.charts.unwrap import unwrap

from ...postprocess.objects import box, sphere
from ..shapes import on
from .measures import atlas_cells, bumpy, stretches, twice_covered


def test_few_flat_charts_of_a_bumpy_ball(device: torch.device) -> None:
    result = unwrap(*on(device, bumpy()))
    assert result.num_charts <= 40
    assert result.utilisation > 0.45
    assert twice_covered(result) < 1e-4
    values = stretches(result)
    assert float(values[:, 0].quantile(0.99)) < 1.3
    assert float(values[:, 1].quantile(0.01)) > 0.7


def test_small_charts_of_a_rough_surface_join() -> None:
    """14,160 faces whose normals are noise: 2,194 charts if each kept to its cone, 433 after six rounds."""
    vertices, faces = bumpy(60)
    noise = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    result = unwrap(vertices + 0.03 * noise, faces)
    assert result.num_charts <= 400
    assert result.utilisation > 0.5
    assert twice_covered(result) < 1e-3


def test_result_is_the_same_mesh(device: torch.device) -> None:
    vertices, faces = on(device, bumpy(30))
    result = unwrap(vertices, faces)
    torch.testing.assert_close(result.vertices, vertices[result.vmap])
    assert torch.equal(result.vmap[result.faces.long()].int(), faces)
    assert int(result.chart_ids.max()) + 1 == result.num_charts
    assert float(result.uvs.min()) >= 0
    assert float(result.uvs.max()) <= 1
    assert {value.device.type for value in (result.uvs, result.faces, result.chart_ids)} == {device.type}
    assert all(value.is_contiguous() for value in (result.vertices, result.uvs, result.faces))


def test_the_same_mesh_twice_gives_the_same_atlas() -> None:
    """On the CPU to the bit, with any number of threads."""
    mesh = bumpy(60)
    threads = torch.get_num_threads()
    first = unwrap(*mesh)
    try:
        torch.set_num_threads(3)
        again = unwrap(*mesh)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first.uvs, again.uvs)
    assert torch.equal(first.vmap, again.vmap)
    assert torch.equal(first.chart_ids, again.chart_ids)


def test_nothing_is_mirrored(device: torch.device) -> None:
    result = unwrap(*on(device, bumpy(30)))
    assert bool((signed_areas(result.uvs.double().T, result.faces.long().T) > 0).all())


def test_charts_keep_their_distance(device: torch.device) -> None:
    """Between texels of two charts lies at least one that neither covers."""
    size = 256
    result = unwrap(*on(device, bumpy(40)), texture_size=size)
    owner = torch.full((size, size), -1, dtype=torch.int32, device=device)
    face, column, row = atlas_cells(result, size)
    owner[row, column] = result.chart_ids[face]
    for a, b in ((owner[:, 1:], owner[:, :-1]), (owner[1:], owner[:-1]), (owner[1:, 1:], owner[:-1, :-1])):
        both = (a >= 0) & (b >= 0)
        assert torch.equal(a[both], b[both])


def test_a_box_has_six_sides(device: torch.device) -> None:
    result = unwrap(*on(device, box((-0.5, -0.3, -0.2), (0.5, 0.3, 0.2))), cone_half_angle=0.5)
    assert result.num_charts == 6
    torch.testing.assert_close(stretches(result), torch.ones_like(stretches(result)), atol=1e-5, rtol=0)


def test_smaller_cones_make_more_charts() -> None:
    vertices, faces = bumpy(40)
    counts = [unwrap(vertices, faces, cone_half_angle=angle).num_charts for angle in (0.3, 0.8, 1.5)]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (torch.zeros((3, 3)), torch.zeros((0, 3), dtype=torch.int32)),
        (torch.zeros((3, 3)), torch.tensor([[0, 1, 3]])),
        (torch.full((3, 3), float("nan")), torch.tensor([[0, 1, 2]])),
    ],
)
def test_bad_meshes(vertices: torch.Tensor, faces: torch.Tensor) -> None:
    with pytest.raises(MeshError):
        unwrap(vertices, faces)


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="cone"):
        unwrap(*sphere(0.4, 8), cone_half_angle=4.0)
    with pytest.raises(ArgumentError, match="texture_size"):
        unwrap(*sphere(0.4, 8), texture_size=4)


def unwraps(count: int, corners: int, seed: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand((corners, 3), generator=generator).to(device)
    faces = torch.randint(0, corners, (count, 3), generator=generator).to(device)
    result = unwrap(vertices, faces)
    assert result.faces.shape == faces.shape
    assert bool(torch.isfinite(result.uvs).all())
    assert float(result.uvs.min()) >= 0
    assert float(result.uvs.max()) <= 1
    assert twice_covered(result, 256) < 0.02


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(3, 20), st.integers(0, 2**31))
def test_any_soup_unwraps(count: int, corners: int, seed: int) -> None:
    """Fans, duplicates, degenerate faces: finite coordinates in the square, and no face lost."""
    unwraps(count, corners, seed, torch.device("cpu"))


@pytest.mark.parametrize("corners", [3, 8, 40])
def test_soups_unwrap_on_the_device(device: torch.device, corners: int) -> None:
    unwraps(60, corners, corners, device)


@pytest.mark.parametrize("face", [[0, 0, 0], [0, 0, 1], [0, 1, 1]])
def test_a_single_face_without_area(device: torch.device, face: list[int]) -> None:
    result = unwrap(torch.rand((2, 3), device=device), torch.tensor([face], device=device))
    assert result.num_charts == 1
    assert bool(torch.isfinite(result.uvs).all())
