from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import MeshError
from o_voxel.mesh import normals
from o_voxel.mesh.arrays.edges import boundary_edges, edge_table
from o_voxel.mesh.repair import cleanup as repair
from o_voxel.mesh.repair import components, holes, orientation
from o_voxel.mesh.validation import check_mesh

from . import shapes

soups = given(seed=st.integers(0, 10**6), vertices=st.integers(1, 14), faces=st.integers(0, 50))
few = settings(max_examples=40, deadline=None)


def soup(seed: int, vertices: int, faces: int) -> shapes.Mesh:
    return shapes.triangle_soup(np.random.default_rng(seed), vertices, faces)


@soups
@few
def test_edge_tables_count_like_a_dictionary(seed: int, vertices: int, faces: int) -> None:
    _, corners = soup(seed, vertices, faces)
    table = edge_table(corners, vertices)
    counts = {tuple(e): n for e, n in zip(table.edges.tolist(), table.counts.tolist(), strict=True)}
    expected = shapes.edge_counts(corners)
    assert counts == dict(expected)
    rim, crowded = boundary_edges(corners, vertices)
    assert sorted(tuple(sorted(e)) for e in rim.tolist()) == sorted(e for e, n in expected.items() if n == 1)
    directed = {(u, v) for f in corners.tolist() for u, v in zip(f, f[1:] + f[:1], strict=True)}
    assert {tuple(e) for e in rim.tolist()} <= directed
    assert set(crowded.nonzero()[:, 0].tolist()) == {v for e, n in expected.items() if n > 2 for v in e}


@soups
@few
def test_repairs_keep_their_promises_on_any_soup(seed: int, vertices: int, faces: int) -> None:
    points, corners = soup(seed, vertices, faces)
    unique = repair.remove_duplicate_faces(points, corners)[1]
    rows = [tuple(sorted(f)) for f in unique.tolist()]
    assert len(rows) == len(set(rows)) == len({tuple(sorted(f)) for f in corners.tolist()})

    clean_points, clean = repair.remove_degenerate_faces(points, corners)
    assert all(len(set(f)) == 3 for f in clean.tolist())
    assert set(clean.reshape(-1).tolist()) == set(range(len(clean_points)))

    split_points, split = repair.repair_non_manifold_edges(clean_points, clean)
    assert max(shapes.edge_counts(split).values(), default=0) <= 2
    torch.testing.assert_close(split_points[split.long()], clean_points[clean.long()])

    left = repair.remove_non_manifold_faces(clean_points, clean)[1]
    bad = {e for e, n in shapes.edge_counts(clean).items() if n > 2}
    good = [
        f
        for f in clean.tolist()
        if not any((min(u, v), max(u, v)) in bad for u, v in zip(f, f[1:] + f[:1], strict=True))
    ]
    assert len(left) == len(good)

    turned = orientation.unify_orientations(split_points, split)[1]
    assert [sorted(f) for f in turned.tolist()] == [sorted(f) for f in split.tolist()]
    holes.fill_holes(points, corners, 1.0)
    outward = orientation.orient_outward(split_points, split)[1]
    assert len(outward) == len(split)
    lengths = normals.vertex_normals(points, corners).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(len(points)))


def test_duplicates_keep_the_first_winding(device: torch.device) -> None:
    points = torch.rand(4, 3, device=device)
    faces = torch.tensor([[2, 1, 0], [0, 1, 2], [1, 2, 0], [1, 2, 3]], device=device)
    assert repair.remove_duplicate_faces(points, faces)[1].tolist() == [[2, 1, 0], [1, 2, 3]]


def test_slivers_go_and_small_triangles_stay() -> None:
    points, faces = shapes.mesh(
        [[0, 0, 0], [1, 0, 0], [0.5, 0, 0], [0, 1e-4, 0], [1e-4, 0, 0]], [[0, 1, 2], [0, 4, 3], [0, 0, 1]]
    )
    left_points, left = repair.remove_degenerate_faces(points, faces)
    assert len(left) == 1
    assert len(left_points) == 3


def test_a_fan_is_cut_into_blades_and_a_bow_tie_into_two(device: torch.device) -> None:
    points, faces = repair.repair_non_manifold_edges(*shapes.on(device, shapes.fan(3)))
    assert len(points) == 9
    points, faces = repair.repair_non_manifold_edges(*shapes.on(device, shapes.bow_tie()))
    assert len(points) == 8
    assert shapes.is_closed(faces)
    assert faces.max() == 7


def test_split_vertices_are_numbered_by_smallest_corner() -> None:
    _, faces = repair.repair_non_manifold_edges(*shapes.cube())
    seen = list(dict.fromkeys(faces.reshape(-1).tolist()))
    assert seen == sorted(seen)


def test_welding_a_triangle_soup_of_a_cube_restores_it(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.cube())
    loose = points[faces.long()].reshape(-1, 3)
    loose_faces = torch.arange(36, device=device).reshape(12, 3)
    welded_points, welded = repair.weld_vertices(loose, loose_faces)
    assert len(welded_points) == 8
    assert shapes.is_closed(welded)
    noise = torch.rand(36, 3, generator=torch.Generator().manual_seed(0)).to(device) * 1e-5
    assert len(repair.weld_vertices(loose + noise, loose_faces)[0]) > 8
    assert len(repair.weld_vertices(loose + noise, loose_faces, tolerance=1e-4)[0]) == 8


def test_small_components_go_by_area(device: torch.device) -> None:
    big, small = shapes.on(device, shapes.sphere(12)), shapes.on(device, shapes.cube(1e-3))
    both = shapes.join(small, (big[0] + 1, big[1]))
    labels = components.face_components(both[1], len(both[0]))
    assert labels.tolist() == [0] * 12 + [1] * len(big[1])
    assert len(components.remove_small_components(*both, min_area=1e-5)[1]) == len(big[1])
    assert len(components.remove_small_components(*both, min_area=5e-6)[1]) == len(both[1])
    assert len(components.remove_small_components(*both, min_area=1e5)[1]) == 0
    assert len(components.keep_largest_component(*both)[0]) == len(big[0])


def test_faces_that_meet_at_a_non_manifold_edge_are_separate_components() -> None:
    _, faces = shapes.fan(3)
    assert components.face_components(faces, 5).tolist() == [0, 1, 2]


def test_orientation_follows_the_smallest_face(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere(12))
    flips = torch.rand(len(faces), generator=torch.Generator().manual_seed(3)).to(device) > 0.5
    mixed = torch.where(flips[:, None], faces[:, [0, 2, 1]], faces)
    unified = orientation.unify_orientations(points, mixed)[1]
    assert shapes.is_oriented(unified)
    assert torch.equal(unified[0], mixed[0])
    outward = orientation.unify_orientations(points, mixed, outward=True)[1]
    assert torch.equal(outward, faces)


def test_a_void_faces_inwards_and_a_body_in_it_outwards() -> None:
    outer, void, core = shapes.sphere(12), shapes.sphere(12, 0.3), shapes.sphere(12, 0.2)
    expected = shapes.join(outer, (void[0], void[1][:, [0, 2, 1]]), core)
    for flip in range(8):
        parts = [(p, f[:, [0, 2, 1]] if flip >> k & 1 else f) for k, (p, f) in enumerate((outer, void, core))]
        assert torch.equal(orientation.orient_outward(*shapes.join(*parts))[1], expected[1])


def test_a_moebius_strip_passes() -> None:
    points, faces = shapes.mobius()
    turned = orientation.unify_orientations(points, faces, outward=True)[1]
    assert torch.equal(turned[0], faces[0]) or torch.equal(turned[0], faces[0][[0, 2, 1]])
    assert not shapes.is_oriented(turned)


def test_normals_of_a_sphere_point_away_from_its_centre(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere(48))
    found = normals.vertex_normals(points, faces)
    assert float((found * points / 0.4).sum(dim=1).min()) > 0.999
    assert float((normals.face_normals(points, faces).norm(dim=1) - 1).abs().max()) < 1e-5
    assert float(normals.face_areas(points, faces).sum()) == pytest.approx(4 * math.pi * 0.16, rel=5e-3)


def test_normals_without_a_sum_fall_back() -> None:
    points, faces = shapes.mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]], [[0, 2, 1], [0, 1, 2]])
    assert normals.vertex_normals(points, faces).tolist() == [[0, 0, -1]] * 3 + [[0, 0, 1]]


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, 3).int(), "empty"),
        (torch.zeros(3, 2), torch.zeros(1, 3).int(), r"\[N, 3\]"),
        (torch.zeros(3, 3), torch.zeros(1, 4).int(), r"\[N, 3\]"),
        (torch.tensor([[math.nan, 0, 0]]), torch.zeros(1, 3).int(), "vertex 0 of 1"),
        (torch.full((1, 3), 1e39, dtype=torch.float64), torch.zeros(1, 3).int(), "not finite"),
        (torch.zeros(3, 3), torch.tensor([[0, 1, 3]]), "0 to 3, but the mesh has 3"),
        (torch.zeros(3, 3), torch.tensor([[0, -1, 2]]), "-1 to 2"),
        (torch.zeros(3, 3), torch.zeros(1, 3), "integers"),
        (torch.zeros(3, 3).int(), torch.zeros(1, 3).int(), "floating"),
    ],
)
def test_bad_arrays_are_named(vertices: torch.Tensor, faces: torch.Tensor, message: str) -> None:
    with pytest.raises(MeshError, match=message):
        check_mesh(vertices, faces)


def test_numpy_arrays_are_refused_with_the_way_out() -> None:
    with pytest.raises(MeshError, match="as_tensor"):
        check_mesh(np.zeros((3, 3)), np.zeros((1, 3)))  # type: ignore[arg-type]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40))
def test_both_row_orders_are_the_same(rows: list[tuple[int, int, int]]) -> None:
    given_rows = torch.tensor(rows)
    assert torch.equal(repair.row_order(given_rows), repair.row_order_by_sorts(given_rows))
