"""The clean-up between the dense mesh and the unwrap."""

from __future__ import annotations

import torch
from o_voxel.postprocess import topology
from o_voxel.postprocess.geometry import clean_and_simplify

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
