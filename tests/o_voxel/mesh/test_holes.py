from __future__ import annotations

import torch
from o_voxel.mesh.repair.holes import fill_holes

from . import shapes


def without(value: shapes.Mesh, *gone: int) -> shapes.Mesh:
    keep = torch.ones(len(value[1]), dtype=torch.bool)
    keep[list(gone)] = False
    return value[0], value[1][keep.to(value[1].device)]


def test_a_torn_sphere_is_closed_and_oriented_again(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere())
    torn = without((points, faces), 0, 1, 2, 300, 301, 700)
    filled_points, filled = fill_holes(*torn, max_perimeter=1.0)
    assert shapes.is_closed(filled)
    assert shapes.is_oriented(filled)
    assert torch.equal(filled_points[: len(points)], points)
    assert torch.equal(filled[: len(torn[1])], torn[1])
    assert abs(shapes.volume(filled_points, filled) - shapes.volume(points, faces)) < 1e-3


def test_the_apex_is_the_mean_of_the_rim() -> None:
    points, faces = shapes.cube()
    filled_points, filled = fill_holes(*without((points, faces), 0, 1), max_perimeter=4.001)
    assert len(filled_points) == 9
    assert len(filled) == 14
    torch.testing.assert_close(filled_points[8], torch.tensor([-0.5, 0.0, 0.0]))


def test_the_perimeter_limit_is_strict() -> None:
    holed = without(shapes.cube(), 0, 1)
    assert len(fill_holes(*holed, max_perimeter=4.0)[1]) == 10
    assert len(fill_holes(*holed, max_perimeter=4.001)[1]) == 14


def test_each_fan_face_agrees_with_its_neighbour_where_windings_differ() -> None:
    points, faces = without(shapes.cube(), 0, 1)
    faces[:3] = faces[:3, [0, 2, 1]]
    _, filled = fill_holes(points, faces, max_perimeter=5.0)
    old = {(u, v) for f in faces.tolist() for u, v in zip(f, f[1:] + f[:1], strict=True)}
    for u, v, _apex in filled[len(faces) :].tolist():
        assert (v, u) in old


def test_a_hole_pinched_at_a_vertex_counts_as_loops() -> None:
    # Two holes of one face each that share a corner: four boundary edges meet there.
    points, faces = shapes.sheet(6)
    at = 3 * 7 + 3
    touching = [f for f, row in enumerate(faces.tolist()) if at in row]
    first = touching[0]
    second = next(f for f in touching if len(set(faces[f].tolist()) & set(faces[first].tolist())) == 1)
    filled_points, filled = fill_holes(*without((points, faces), first, second), max_perimeter=1.5)
    assert len(filled_points) == len(points) + 2
    rim = [e for e, n in shapes.edge_counts(filled).items() if n == 1]
    assert len(rim) == 24  # the sheet's own border, longer than the limit


def test_open_chains_and_non_manifold_edges_are_left_alone() -> None:
    points, faces = shapes.fan(3)
    assert len(fill_holes(points, faces, max_perimeter=100.0)[1]) == 3


def test_one_triangle_is_a_loop_of_its_own() -> None:
    points, faces = shapes.mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    filled_points, filled = fill_holes(points, faces, max_perimeter=10.0)
    assert shapes.is_closed(filled)
    assert shapes.is_oriented(filled)
    assert len(filled_points) == 4


def test_nothing_to_fill() -> None:
    points, faces = shapes.cube()
    filled_points, filled = fill_holes(points, faces)
    assert torch.equal(filled, faces)
    assert torch.equal(filled_points, points)
    empty = fill_holes(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
    assert len(empty[1]) == 0
