"""The clean-up between the dense mesh and the unwrap."""

from __future__ import annotations

import pytest
import torch
from o_voxel.convert import flexible_dual_grid_to_mesh
from o_voxel.mesh.rebuild.remesh import remesh_narrow_band
from o_voxel.mesh.simplification.flips import evenness
from o_voxel.postprocess import topology
from o_voxel.postprocess.geometry import LOW_POLY, clean_and_simplify, evened, simplified_closed

from .objects import box

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def two_tetrahedra() -> tuple[torch.Tensor, torch.Tensor]:
    """Small, sharing the edge 0-1, which so has four faces."""
    first = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 1, 0], [0.5, 0.5, 1]])
    second = torch.tensor([[0.5, -1.0, 0], [0.5, -0.5, -1]])
    renamed = torch.tensor([0, 1, 4, 5])
    return torch.cat([first, second]) * 0.005, torch.cat([TETRAHEDRON, renamed[TETRAHEDRON]])


def test_a_shared_edge_is_cut_but_not_filled() -> None:
    vertices, faces = clean_and_simplify(two_tetrahedra(), 1000)
    assert len(faces) == 8  # no fan in the cut
    assert len(vertices) == 8
    found = topology(vertices.numpy(), faces.numpy())
    assert (found.boundary_edges, found.non_manifold_edges) == (0, 1)


def test_a_hole_at_a_shared_edge_is_filled() -> None:
    vertices, faces = two_tetrahedra()
    open_faces = faces[1:]  # the face at the shared edge
    assert topology(vertices.numpy(), open_faces.numpy()).boundary_edges == 2
    cleaned = clean_and_simplify((vertices, open_faces), 1000)
    found = topology(cleaned[0].numpy(), cleaned[1].numpy())
    assert found.boundary_edges == 0


def test_normals_point_outwards_whatever_the_winding() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) * 0.4
    mixed = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 3, 2], [2, 0, 3]])
    points, faces = clean_and_simplify((vertices, mixed), 1000)
    a, b, c = points[faces.long()].unbind(dim=1)
    volume = float((a * torch.linalg.cross(b, c)).sum()) / 6
    assert abs(volume - 0.4**3 / 6) < 1e-6


def test_a_mesh_of_crumbs_is_kept() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) * 1e-4
    assert len(clean_and_simplify((vertices, TETRAHEDRON), 1000)[1]) == 4


def test_a_flap_is_dropped() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, -0.5, -0.5]]) * 0.4
    faces = torch.cat([TETRAHEDRON, torch.tensor([[0, 1, 4]])])
    cleaned = clean_and_simplify((vertices, faces), 1000)
    assert len(cleaned[1]) == 4
    assert topology(cleaned[0].numpy(), cleaned[1].numpy()).watertight


def test_few_faces_are_made_even_and_many_are_left() -> None:
    flat = box((-0.4, -0.4, -0.1), (0.4, 0.4, 0.1))
    dense = remesh_narrow_band(*flat, torch.zeros(3), 1.1, 48)
    mesh = simplified_closed(dense, 900)
    made = evened(mesh)
    assert torch.equal(made[0], mesh[0])
    worst = [float(evenness(*body).quantile(0.1)) for body in (mesh, made)]
    assert worst[1] > 1.1 * worst[0]
    many = mesh[0], mesh[1].repeat(LOW_POLY // len(mesh[1]) + 1, 1)
    assert evened(many) is many


def frayed_ball(size: int, wrong: float, grid: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball's dual grid with a share of its edge flags wrong: pinholes, stray faces, crowded edges."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.cartesian_prod(*[torch.arange(grid)] * 3)
    cells = cells[(((cells + 0.5) / grid - 0.5).norm(dim=1) - 0.35).abs() < 1.2 / grid]
    ends = (cells / grid - 0.5)[:, None] - torch.cat([torch.zeros(1, 3), torch.eye(3)]) / grid
    inside = ends.norm(dim=2) < 0.35
    flags = inside[:, :1] ^ inside[:, 1:] ^ (torch.rand((len(cells), 3), generator=generator) < wrong)
    places = torch.rand((len(cells), 3), generator=generator) * 0.6 + 0.2
    box = [[-0.5] * 3, [0.5] * 3]
    vertices, faces = flexible_dual_grid_to_mesh(cells.int(), places, flags, None, aabb=box, grid_size=grid)
    return vertices * size / grid, faces


@pytest.mark.parametrize(("size", "wrong"), [(20, 0.03), (6, 0.1)])
def test_what_fills_holes_of_a_frayed_mesh_counts_in_the_budget(size: int, wrong: float) -> None:
    mesh = frayed_ball(size, wrong)
    assert len(mesh[1]) > 9000
    assert 3600 <= len(clean_and_simplify(mesh, 4000)[1]) <= 4040
