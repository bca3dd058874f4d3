"""Mesh to dual grid: round trips, the meaning of flags and weights, bad meshes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from o_voxel.convert.quadrics import minimise_in_boxes
from o_voxel.errors import ArgumentError, MeshError

from .shapes import UNIT_BOX, quad, sphere


def convert(
    vertices: torch.Tensor, faces: torch.Tensor, resolution: int = 24, **options: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = {"boundary_weight": 0.2, "regularization_weight": 0.01} | options
    return mesh_to_flexible_dual_grid(vertices, faces, grid_size=resolution, aabb=UNIT_BOX, **weights)


def test_round_trip_vertices_and_distance() -> None:
    coords, dual, flags = convert(*sphere(rings=24))
    local = dual * 24 - coords
    assert float(local.min()) >= -1e-3
    assert float(local.max()) <= 1 + 1e-3
    vertices, faces = flexible_dual_grid_to_mesh(coords, local, flags, None, UNIT_BOX, grid_size=24)
    torch.testing.assert_close(vertices, dual - 0.5, atol=1e-6, rtol=0)
    used = vertices[faces.long().unique()]
    assert float((used.norm(dim=1) - 0.37).abs().max()) < 0.25 / 24


def test_no_quad_is_dropped_and_a_closed_surface_stays_closed() -> None:
    coords, dual, flags = convert(*sphere())
    _, faces = flexible_dual_grid_to_mesh(coords, dual * 24 - coords, flags, None, UNIT_BOX, grid_size=24)
    assert len(faces) == 2 * int(flags.sum())
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]])).sort(dim=1).values
    _, uses = edges.unique(dim=0, return_counts=True)
    assert (uses % 2 == 0).all()


def test_rows_ascend() -> None:
    coords, _, _ = convert(*sphere())
    assert coords.tolist() == sorted(coords.tolist())


def test_flags_mark_the_owned_edges_that_the_surface_crosses() -> None:
    vertices, faces = quad(side=0.53, z=0.01)  # 0.235 to 0.765 of the box, in row 5 of 10 along z
    coords, dual, flags = convert(vertices, faces, resolution=10)
    assert set(coords[:, 2].tolist()) == {5}
    assert not flags[:, :2].any()
    # Lattice lines 0.3 to 0.7 are crossed; the voxel that owns an edge ends there.
    owners = coords[flags[:, 2]]
    assert sorted({c for c, _, _ in owners.tolist()}) == [2, 3, 4, 5, 6]
    torch.testing.assert_close(dual[:, 2], torch.full((len(dual),), 0.51), atol=1e-4, rtol=0)


def test_boundary_weight_pulls_to_the_edge_of_a_sheet() -> None:
    vertices, faces = quad(side=0.53, z=0.013)
    coords, free, _ = convert(vertices, faces, resolution=10, boundary_weight=0.0)
    _, pulled, _ = convert(vertices, faces, resolution=10, boundary_weight=1.0)
    beyond = coords[:, 0] == 7  # voxels 0.7 .. 0.8 hold the sheet's edge at 0.765
    inner = (coords[:, 1] > 2) & (coords[:, 1] < 7)
    assert bool((beyond & inner).any())
    target = 0.5 + 0.53 / 2
    error = [(d[beyond & inner, 0] - target).abs().max() for d in (free, pulled)]
    assert float(error[1]) < 0.002 < float(error[0])


def test_a_shared_edge_on_a_lattice_line_is_counted_once() -> None:
    vertices = torch.tensor([[-0.3, -0.3, 0.01], [0.0, -0.3, 0.01], [0.0, 0.3, 0.01], [0.3, -0.3, 0.01]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    both, _, flags = convert(vertices, faces, resolution=10)
    parts = [convert(vertices, faces[i : i + 1], resolution=10) for i in range(2)]
    owners = [set(map(tuple, c[f[:, 2]].tolist())) for c, _, f in parts]
    assert not owners[0] & owners[1]
    assert set(map(tuple, both[flags[:, 2]].tolist())) == owners[0] | owners[1]


def test_face_weight_is_a_switch() -> None:
    mesh = sphere()
    one, five, none = (convert(*mesh, face_weight=w)[1] for w in (1.0, 5.0, 0.0))
    torch.testing.assert_close(one, five, atol=0, rtol=0)
    assert not torch.allclose(one, none)


def test_a_surface_between_lattice_lines_vanishes() -> None:
    vertices = torch.tensor([[0.01, 0.01, 0.01], [0.03, 0.01, 0.02], [0.01, 0.03, 0.03]])
    coords, dual, flags = convert(vertices, torch.tensor([[0, 1, 2]]), resolution=10)
    assert coords.shape == dual.shape == flags.shape == (0, 3)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e6, 1e30])
def test_meshes_larger_than_the_box_are_cut_at_it(scale: float) -> None:
    vertices, faces = sphere()
    coords, dual, _ = convert(vertices * scale, faces, resolution=8)
    assert torch.isfinite(dual).all()
    if len(coords):
        assert int(coords.min()) >= 0
        assert int(coords.max()) < 8


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_random_triangle_soup_gives_points_inside_their_voxels(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand((10, 3), generator=generator) * 1.4 - 0.7
    faces = torch.randint(0, 10, (count, 3), generator=generator)  # repeated corners and faces included
    coords, dual, flags = convert(vertices, faces, resolution=9)
    assert len(coords) == len(coords.unique(dim=0))
    local = dual * 9 - coords
    assert torch.isfinite(dual).all()
    if len(coords):
        assert float(local.min()) > -1e-3
        assert float(local.max()) < 1 + 1e-3
    _, quads = flexible_dual_grid_to_mesh(coords, local, flags, None, UNIT_BOX, grid_size=9)
    assert len(quads) <= 2 * int(flags.sum())


def test_minimum_in_a_box_beats_a_dense_search() -> None:
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn((200, 4, 3), dtype=torch.float64, generator=generator)
    offset = torch.randn((200, 4), dtype=torch.float64, generator=generator)
    a = torch.einsum("npi,npj->nij", planes, planes) + 1e-3 * torch.eye(3)
    b = torch.einsum("npi,np->ni", planes, offset)
    upper = [a[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    quadrics = torch.cat((torch.stack(upper, dim=1), b, torch.zeros((200, 1))), dim=1)
    best = minimise_in_boxes(quadrics, torch.full((200, 3), 0.5, dtype=torch.float64), torch.ones(3).double())
    assert float(best.min()) >= 0
    assert float(best.max()) <= 1
    ticks = torch.linspace(0, 1, 13, dtype=torch.float64)
    lattice = torch.cartesian_prod(ticks, ticks, ticks)

    def energy(p: torch.Tensor) -> torch.Tensor:  # p [n, k, 3]
        return torch.einsum("nki,nij,nkj->nk", p, a, p) + 2 * torch.einsum("nki,ni->nk", p, b)

    searched = energy(lattice.expand(200, -1, 3)).min(dim=1).values
    assert (energy(best[:, None])[:, 0] <= searched + 1e-9).all()


def test_without_regularisation_flat_cells_still_solve() -> None:
    coords, dual, _ = convert(*quad(), resolution=10, regularization_weight=0.0, boundary_weight=0.0)
    assert len(coords)
    torch.testing.assert_close(dual[:, 2], torch.full((len(dual),), 0.51), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (torch.zeros((3, 3)), torch.zeros((0, 3), dtype=torch.long)),
        (torch.zeros((3, 3)), torch.tensor([[0, 1, 3]])),
        (torch.zeros((3, 3)), torch.tensor([[0, 1, -1]])),
        (torch.tensor([[0.0, 0, 0], [1, 0, float("nan")], [0, 1, 0]]), torch.tensor([[0, 1, 2]])),
        (torch.tensor([[0.0, 0, 0], [1, 0, float("inf")], [0, 1, 0]]), torch.tensor([[0, 1, 2]])),
        (torch.zeros((3, 2)), torch.tensor([[0, 1, 2]])),
        (torch.zeros((3, 3)), torch.tensor([[0.0, 1.0, 2.0]])),
    ],
    ids=["no faces", "index past the end", "negative index", "nan", "inf", "flat vertices", "float faces"],
)
def test_bad_meshes(vertices: torch.Tensor, faces: torch.Tensor) -> None:
    with pytest.raises(MeshError):
        convert(vertices, faces)


def test_a_degenerate_triangle_makes_no_trouble() -> None:
    vertices = torch.tensor([[-0.3, -0.3, -0.3], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0]])
    _, dual, _ = convert(vertices, torch.tensor([[0, 1, 2], [0, 0, 1], [2, 2, 2]]))
    assert torch.isfinite(dual).all()


def test_no_size_is_refused() -> None:
    with pytest.raises(ArgumentError):
        mesh_to_flexible_dual_grid(*quad())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu() -> None:
    vertices, faces = sphere()
    here, there = convert(vertices, faces), convert(vertices.cuda(), faces.cuda())
    assert torch.equal(here[0], there[0].cpu())
    assert torch.equal(here[2], there[2].cpu())
    torch.testing.assert_close(here[1], there[1].cpu(), atol=1e-4, rtol=0)
