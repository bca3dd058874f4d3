from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError
from o_voxel.mesh.simplification import quadric
from o_voxel.mesh.simplification.simplify import Method, simplify
from o_voxel.mesh.spatial.bvh import TriangleBVH

from . import shapes

methods = pytest.mark.parametrize("method", ["quadric", "parallel"])


@methods
@pytest.mark.parametrize("target", [3000, 1000, 200])
def test_budget_and_shape_of_a_sphere(device: torch.device, method: Method, target: int) -> None:
    points, faces = shapes.on(device, shapes.sphere(48))
    fewer_points, fewer = simplify(points, faces, target, method=method)
    assert 0.97 * target <= len(fewer) <= 1.01 * target
    assert fewer.device.type == device.type
    assert fewer.dtype == torch.int32
    assert shapes.is_closed(fewer)
    assert shapes.is_oriented(fewer)
    assert set(fewer.reshape(-1).tolist()) == set(range(len(fewer_points)))
    assert shapes.volume(fewer_points, fewer) == pytest.approx(
        shapes.volume(points, faces), rel=0.06 if target > 200 else 0.12
    )
    away = TriangleBVH(fewer_points, fewer).closest(points).distance
    assert float(away.max()) < 0.4 * 8 / target**0.5 * 0.2


@methods
def test_a_flat_sheet_stays_flat_and_keeps_its_corners(method: Method) -> None:
    points, faces = shapes.sheet(24)
    fewer_points, fewer = simplify(points, faces, 400, method=method)
    assert len(fewer) <= 404
    assert float(fewer_points[:, 2].abs().max()) < 1e-6
    area = torch.linalg.cross(
        fewer_points[fewer[:, 1].long()] - fewer_points[fewer[:, 0].long()],
        fewer_points[fewer[:, 2].long()] - fewer_points[fewer[:, 0].long()],
    )
    assert bool((area[:, 2] >= -1e-6).all())
    if method == "quadric":  # it keeps borders
        assert float(area[:, 2].sum() / 2) == pytest.approx(1.0, abs=1e-4)


@methods
def test_within_budget_is_untouched(method: Method) -> None:
    points, faces = shapes.cube()
    assert torch.equal(simplify(points, faces, 12, method=method)[1], faces)
    assert torch.equal(simplify(points, faces, 10**9, method=method)[1], faces)


@methods
def test_absurd_budgets_give_something_sound(method: Method, caplog: pytest.LogCaptureFixture) -> None:
    both = shapes.join(shapes.sphere(12), (shapes.sphere(12)[0] + 1, shapes.sphere(12)[1]))
    with caplog.at_level(logging.WARNING):
        points, faces = simplify(*both, 1, method=method)
    assert len(faces) >= 1
    assert bool(torch.isfinite(points).all())
    assert len(faces) <= 1 or "asked for" in caplog.text


@given(
    seed=st.integers(0, 10**6),
    vertices=st.integers(3, 40),
    faces=st.integers(1, 120),
    target=st.integers(1, 60),
    method=st.sampled_from(["quadric", "parallel"]),
)
@settings(max_examples=40, deadline=None)
def test_any_soup_survives(seed: int, vertices: int, faces: int, target: int, method: Method) -> None:
    points, corners = shapes.triangle_soup(np.random.default_rng(seed), vertices, faces)
    fewer_points, fewer = simplify(points, corners, target, method=method)
    assert len(fewer) <= len(corners)
    assert bool(torch.isfinite(fewer_points).all())
    if len(fewer):
        assert 0 <= int(fewer.min()) <= int(fewer.max()) < len(fewer_points)


@methods
def test_same_input_same_output(method: Method) -> None:
    first, second = (simplify(*shapes.sphere(24), 500, method=method) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_parallel_collapse_keeps_an_open_border_in_place() -> None:
    points, faces = shapes.sheet(12)
    fewer_points, _ = simplify(points, faces, 150, method="parallel")
    # A collapse between a border vertex and an inner one ends at the border vertex.
    low, high = fewer_points.amin(dim=0), fewer_points.amax(dim=0)
    torch.testing.assert_close(high - low, torch.tensor([1.0, 1.0, 0.0]), atol=0.2, rtol=0)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of the library kept borders, as calls are made."""
    import fast_simplification

    made: list[bool] = []
    genuine = fast_simplification.simplify

    def counted(
        *arrays: np.ndarray, preserve_border: bool, **options: float
    ) -> tuple[np.ndarray, np.ndarray]:
        made.append(preserve_border)
        points, faces = genuine(*arrays, preserve_border=preserve_border, **options)
        return points, faces

    monkeypatch.setattr(fast_simplification, "simplify", counted)
    return made


@pytest.mark.parametrize("lost", [0.05, 0.4])
def test_a_frayed_mesh_takes_few_attempts(attempts: list[bool], lost: float) -> None:
    points, faces = shapes.sphere(80)
    frayed = faces[torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) >= lost]
    fewer_points, fewer = simplify(points, frayed, 2000)
    assert 1000 <= len(fewer) <= 2020
    assert len(attempts) <= 3
    assert not attempts[-1]  # at the end borders had to move
    away = TriangleBVH(points, frayed).closest(fewer_points).distance
    assert float(away.mean()) < 0.02


@pytest.mark.parametrize("counted", [1 << 17, 1000])
def test_border_edges_of_large_meshes_are_estimated(monkeypatch: pytest.MonkeyPatch, counted: int) -> None:
    monkeypatch.setattr(quadric, "COUNTED", counted)
    faces = shapes.sphere(80)[1]
    frayed = faces[torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) >= 0.2]
    exact = list(shapes.edge_counts(frayed).values()).count(1)
    assert quadric.border_edges(frayed.numpy()) == pytest.approx(
        exact, rel=0 if counted > len(frayed) else 0.1
    )
    assert quadric.border_edges(faces.numpy()) == 0


def test_a_sound_mesh_takes_one_attempt_and_keeps_its_border(attempts: list[bool]) -> None:
    simplify(*shapes.sheet(40), 800)
    assert attempts == [True]


def test_calls_from_several_threads_do_not_mix() -> None:
    meshes = [shapes.sphere(r) for r in (16, 20, 24, 28)]
    alone = [simplify(*m, 300) for m in meshes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda m: simplify(*m, 300), meshes))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one[1], other[1])


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="1 or more"):
        simplify(*shapes.cube(), 0)
    with pytest.raises(ArgumentError, match="unknown method"):
        simplify(*shapes.cube(), 5, method="magic")  # type: ignore[arg-type]


def test_merged_vertices_stay_near_and_leave_a_sound_mesh() -> None:
    points, faces = shapes.sphere(48)
    target = len(faces) // 8
    fewer_points, fewer = quadric._merged(points.numpy(), faces.numpy(), target)
    assert target < len(fewer) < len(faces)
    assert (fewer != np.roll(fewer, -1, axis=1)).all()
    assert len(np.unique(np.sort(fewer, axis=1), axis=0)) == len(fewer)
    area = 4 * np.pi * 0.4**2
    edge = (4 / 3**0.5 * area / target) ** 0.5
    away = TriangleBVH(points, faces).closest(torch.from_numpy(fewer_points)).distance
    assert float(away.max()) < quadric.SPACING * edge


def test_merging_everything_leaves_the_mesh_alone() -> None:
    points, faces = (x.numpy() for x in shapes.sphere(8))
    points = points + 10.0  # within one cell
    assert quadric._merged(points, faces, 1)[1] is faces


@pytest.mark.parametrize("height", [0.0, 1e-30])
def test_slivers_are_not_merged(height: float) -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0.5, height, 0], [0.2, 0, 0]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 2]], dtype=np.int32)
    assert quadric._merged(points, faces, 1)[1] is faces
