"""Unwrapping: every face gets a place of its own in the atlas, hardly distorted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.mesh.charts import cluster_faces, connected_charts, face_graph
from o_voxel.mesh.flatten import covered_cells, signed_areas
from o_voxel.mesh.packing import pack_charts
from o_voxel.mesh.unwrap import Unwrapped, unwrap

from ..postprocess.objects import box, sphere


def bumpy(rings: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    vertices, faces = sphere(0.4, rings)
    return vertices * (1 + 0.06 * torch.sin(vertices * 25).prod(dim=1, keepdim=True)), faces


def twice_covered(result: Unwrapped, size: int = 512) -> float:
    """Share of covered cells that two faces claim."""
    corners = result.uvs.double().numpy()[result.faces.numpy()] * size
    _, column, row = covered_cells(corners)
    cells = row * size + column
    return 1 - len(np.unique(cells)) / len(cells) if len(cells) else 0.0


def stretches(result: Unwrapped) -> np.ndarray:
    """Singular values [F, 2] of the map from the surface to the atlas, relative to the mean scale."""
    corners = result.vertices.double().numpy()[result.faces.numpy()]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.linalg.norm(first, axis=1)
    along = (first * second).sum(axis=1) / length
    height = np.linalg.norm(np.cross(first, second), axis=1) / length
    rest = np.zeros((len(corners), 2, 2))
    rest[:, 0, 0], rest[:, 0, 1], rest[:, 1, 1] = length, along, height
    flat = result.uvs.double().numpy()[result.faces.numpy()]
    now = np.stack([flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]], axis=2)
    values = np.linalg.svd(now @ np.linalg.inv(rest), compute_uv=False)
    return values / np.median(values)


def test_few_flat_charts_of_a_bumpy_ball() -> None:
    vertices, faces = bumpy()
    result = unwrap(vertices, faces)
    assert result.num_charts <= 40
    assert result.utilisation > 0.45
    assert twice_covered(result) < 1e-4
    values = stretches(result)
    assert np.percentile(values[:, 0], 99) < 1.3
    assert np.percentile(values[:, 1], 1) > 0.7


def test_result_is_the_same_mesh() -> None:
    vertices, faces = bumpy(30)
    result = unwrap(vertices, faces)
    torch.testing.assert_close(result.vertices, vertices[result.vmap])
    assert torch.equal(result.vmap[result.faces.long()].int(), faces)
    assert int(result.chart_ids.max()) + 1 == result.num_charts
    assert float(result.uvs.min()) >= 0
    assert float(result.uvs.max()) <= 1


def test_nothing_is_mirrored() -> None:
    result = unwrap(*bumpy(30))
    assert (signed_areas(result.uvs.double().numpy(), result.faces.long().numpy()) > 0).all()


def test_charts_keep_their_distance() -> None:
    """Between texels of two charts lies at least one that neither covers."""
    size = 256
    result = unwrap(*bumpy(40), texture_size=size)
    owner = np.full((size, size), -1)
    face, column, row = covered_cells(result.uvs.double().numpy()[result.faces.numpy()] * size)
    owner[row, column] = result.chart_ids.numpy()[face]
    for a, b in ((owner[:, 1:], owner[:, :-1]), (owner[1:], owner[:-1]), (owner[1:, 1:], owner[:-1, :-1])):
        both = (a >= 0) & (b >= 0)
        assert (a[both] == b[both]).all()


def test_a_box_has_six_sides() -> None:
    result = unwrap(*box((-0.5, -0.3, -0.2), (0.5, 0.3, 0.2)), cone_half_angle=0.5)
    assert result.num_charts == 6
    np.testing.assert_allclose(stretches(result), 1, atol=1e-5)


def test_smaller_cones_make_more_charts() -> None:
    vertices, faces = bumpy(40)
    counts = [unwrap(vertices, faces, cone_half_angle=angle).num_charts for angle in (0.3, 0.8, 1.5)]
    assert counts[0] > counts[1] > counts[2]


def test_charts_are_connected_and_within_their_cone() -> None:
    vertices, faces = (array.numpy() for array in bumpy(40))
    limit = 0.9
    labels = cluster_faces(
        vertices.astype(float), faces.astype(np.int64), limit, area_weight=0.0, perimeter_weight=0.0
    )
    graph = face_graph(vertices.astype(float), faces.astype(np.int64))
    assert connected_charts(graph, labels).max() == labels.max()
    for chart in range(labels.max() + 1):
        normals = graph.normals[labels == chart]
        axis = normals.sum(axis=0) / np.linalg.norm(normals.sum(axis=0))
        assert (
            np.arccos(np.clip((normals @ axis).min(), -1, 1)) <= 1.1 * limit
        )  # the merge cost estimates the angle


def test_more_charts_than_a_row_holds() -> None:
    """Hundreds of separate triangles still fit the square."""
    random = np.random.default_rng(0)
    plane = random.random((1200, 2)) * 0.1
    faces = np.arange(1200).reshape(-1, 3)
    packing = pack_charts(plane, faces, np.arange(400), cells=256)
    assert packing.uvs.min() >= 0
    assert packing.uvs.max() <= 1
    assert packing.utilisation > 0.1
    _, column, row = covered_cells(packing.uvs[faces] * 1024)
    assert len(np.unique(row * 1024 + column)) == len(row)


def test_a_chart_without_a_border_has_its_place_too() -> None:
    """Two faces back to back, as simplifying leaves of a small closed part."""
    plane = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    faces = np.array([[0, 1, 2], [0, 2, 1], [3, 4, 5]])
    packing = pack_charts(plane, faces, np.array([0, 0, 1]), cells=64)
    assert packing.uvs.min() >= 0
    assert packing.uvs.max() <= 1
    size = packing.uvs[[1, 4]] - packing.uvs[[0, 3]]
    assert np.linalg.norm(size[0]) == pytest.approx(np.linalg.norm(size[1]) * 2 / 3)


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


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(3, 20), st.integers(0, 2**31))
def test_any_soup_unwraps(count: int, corners: int, seed: int) -> None:
    """Fans, duplicates, degenerate faces: finite coordinates in the square, and no face lost."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand((corners, 3), generator=generator)
    faces = torch.randint(0, corners, (count, 3), generator=generator)
    result = unwrap(vertices, faces)
    assert result.faces.shape == faces.shape
    assert bool(torch.isfinite(result.uvs).all())
    assert float(result.uvs.min()) >= 0
    assert float(result.uvs.max()) <= 1
    assert twice_covered(result, 256) < 0.02
