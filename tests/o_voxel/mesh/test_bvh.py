from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.mesh.spatial.bvh import TriangleBVH

from . import shapes


def random_points(count: int, seed: int = 0, spread: float = 1.5) -> torch.Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * spread


@given(seed=st.integers(0, 10**6), vertices=st.integers(1, 30), faces=st.integers(1, 60), flat=st.booleans())
@settings(max_examples=25, deadline=None)
def test_closest_point_of_any_soup_equals_brute_force(
    seed: int, vertices: int, faces: int, flat: bool
) -> None:
    points, corners = shapes.triangle_soup(np.random.default_rng(seed), vertices, faces)
    if flat:
        points[:, 2] = 0
    queries = random_points(200, seed)
    found = TriangleBVH(points, corners).closest(queries)
    expected = shapes.brute_closest(queries, points, corners)
    # float32 against float64: a sliver's edges cost a few units in the last place of the coordinates
    torch.testing.assert_close(found.distance.double(), expected, atol=1e-5, rtol=1e-5)
    assert bool((found.barycentric >= -1e-5).all())
    torch.testing.assert_close(found.barycentric.sum(dim=1), torch.ones(200))
    at = (points[corners[found.face].long()] * found.barycentric[:, :, None]).sum(dim=1)
    torch.testing.assert_close((at - queries).norm(dim=1), found.distance, atol=2e-6, rtol=1e-4)


def test_closest_on_sphere_is_analytic(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere(64))
    queries = random_points(20000).to(device)
    found = TriangleBVH(points, faces).closest(queries)
    assert found.distance.device.type == device.type
    exact = (queries.norm(dim=1) - 0.4).abs()
    assert float((found.distance - exact).abs().max()) < 0.4 * (1 - math.cos(math.pi / 64)) * 2


def test_limit_prunes_and_marks_misses() -> None:
    points, faces = shapes.sphere()
    queries = random_points(3000)
    tree = TriangleBVH(points, faces)
    free, limited = tree.closest(queries), tree.closest(queries, 0.1)
    near = free.distance < 0.1
    assert bool((limited.face[~near] == -1).all())
    assert bool(torch.isinf(limited.distance[~near]).all())
    assert torch.equal(limited.distance[near], free.distance[near])
    each = tree.closest(queries, torch.where(near, 0.1, 9.0))
    torch.testing.assert_close(each.distance, free.distance)


def test_threads_and_pieces_agree_with_one_thread() -> None:
    points, faces = shapes.sphere()
    queries = random_points(50000)
    tree = TriangleBVH(points, faces)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = tree.closest(queries)
        torch.set_num_threads(3)
        split = tree.closest(queries)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone.distance, split.distance)
    assert torch.equal(alone.face, split.face)
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: tree.closest(queries), range(4)):
            assert torch.equal(other.distance, alone.distance)


def test_rays_against_a_cube(device: torch.device) -> None:
    tree = TriangleBVH(*shapes.on(device, shapes.cube()))
    origins = torch.tensor([[2.0, 0.1, 0.2], [0.1, 0.2, 0.0], [2.0, 2.0, 2.0]], device=device)
    directions = torch.tensor([[-3.0, 0.0, 0.0], [0.0, 0.0, 0.5], [1.0, 0.0, 0.0]], device=device)
    hits = tree.cast(origins, directions)
    torch.testing.assert_close(hits.distance.cpu(), torch.tensor([1.5, 0.5, math.inf]))
    assert hits.face[2] == -1
    at = tree.points_at(hits.face[:2], hits.barycentric[:2]).cpu()
    torch.testing.assert_close(at, torch.tensor([[0.5, 0.1, 0.2], [0.1, 0.2, 0.5]]), atol=1e-6, rtol=0)
    assert tree.cast(origins[:1], directions[:1], 1.4).face[0] == -1
    assert tree.crossings(origins, directions).tolist() == [2, 1, 0]


def test_inside_and_signed_distance(device: torch.device) -> None:
    tree = TriangleBVH(*shapes.on(device, shapes.cube()))
    queries = random_points(2000).to(device)
    truth = (queries.abs() < 0.5).all(dim=1)
    clear = (queries.abs() - 0.5).abs().amin(dim=1) > 1e-3
    assert torch.equal(tree.inside(queries)[clear], truth[clear])
    signed = tree.signed_distance(queries)
    depth = (0.5 - queries.abs()).amin(dim=1)
    torch.testing.assert_close(signed[truth & clear], -depth[truth & clear], atol=1e-5, rtol=0)


def test_one_triangle_one_point_and_no_query() -> None:
    points, faces = shapes.mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    tree = TriangleBVH(points, faces)
    assert float(tree.closest(torch.tensor([[0.25, 0.25, 2.0]])).distance) == pytest.approx(2.0)
    assert len(tree.closest(torch.zeros(0, 3)).face) == 0
    assert len(tree.cast(torch.zeros(0, 3), torch.zeros(0, 3)).face) == 0
    collapsed = TriangleBVH(points, torch.tensor([[1, 1, 1]]))
    assert float(collapsed.closest(torch.tensor([[1.0, 0.0, 3.0]])).distance) == pytest.approx(3.0)


def test_the_tree_keeps_its_own_copy() -> None:
    points, faces = shapes.cube()
    tree = TriangleBVH(points, faces)
    points.fill_(77.0)
    assert float(tree.closest(torch.tensor([[0.0, 0.0, 2.0]])).distance) == pytest.approx(1.5)


def test_bad_queries_are_refused() -> None:
    tree = TriangleBVH(*shapes.cube())
    with pytest.raises(ArgumentError, match=r"\[Q, 3\]"):
        tree.closest(torch.zeros(3))
    with pytest.raises(ArgumentError, match="NaN"):
        tree.closest(torch.tensor([[math.nan, 0, 0]]))
    with pytest.raises(ArgumentError, match="0 or more"):
        tree.closest(torch.zeros(1, 3), -1.0)
    with pytest.raises(ArgumentError, match="2 points"):
        tree.closest(torch.zeros(2, 3), torch.ones(3))
    with pytest.raises(ArgumentError, match="length 0"):
        tree.cast(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ArgumentError, match="1 directions"):
        tree.cast(torch.zeros(2, 3), torch.ones(1, 3))
    with pytest.raises(MeshError, match="empty"):
        TriangleBVH(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))


def test_openness_beside_a_wall_is_analytic() -> None:
    """At a distance d from a long wall of height h the cosine-weighted share of the sky is (1 + d/r)/2, with
    r the distance to the wall's upper edge."""
    floor = [[-15, -15, 0], [15, -15, 0], [15, 15, 0], [-15, 15, 0]]
    wall = [[0, -15, 0], [0, 15, 0], [0, 15, 1], [0, -15, 1]]
    vertices = torch.tensor([*floor, *wall], dtype=torch.float32)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], dtype=torch.int32)
    distance = torch.tensor([0.5, 1.0, 2.0])
    points = torch.stack([distance, 0 * distance, 0 * distance], dim=1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand(3, 3)
    openness = TriangleBVH(vertices, faces).openness(points, up, rays=4096)
    expected = (1 + distance / (distance**2 + 1).sqrt()) / 2
    # Rays start a thousandth of the mesh's radius above the floor, so that it does not hide itself.
    torch.testing.assert_close(openness, expected, rtol=0, atol=0.02)
    assert float(TriangleBVH(vertices, faces).openness(points[:1], -up[:1])) == 1.0


@pytest.mark.parametrize("corners", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1)])
def test_a_triangle_with_two_corners_at_one_place_is_a_side(corners: tuple[int, int, int]) -> None:
    from o_voxel.mesh.rebuild.rebuild import rebuild

    ends = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    points, faces = ends[list(corners)], torch.tensor([[0, 1, 2]], dtype=torch.int32)
    queries = torch.tensor([[0.5, 1.0, 0.0], [-3.0, 4.0, 0.0], [1.0, 0.0, 2.0], [0.25, 0.0, 0.0]])
    found = TriangleBVH(points, faces).closest(queries).distance
    torch.testing.assert_close(found, torch.tensor([1.0, 5.0, 2.0, 0.0]))
    square = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    both = torch.cat([points, square]), torch.cat([faces, faces + 3])
    assert rebuild(*both, 1 / 16)[0].isfinite().all()
