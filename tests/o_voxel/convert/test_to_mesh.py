"""Dual grid to mesh: winding, splits, dropped quads, train mode."""

from __future__ import annotations

import pytest
import torch
from o_voxel.convert import flexible_dual_grid_to_mesh
from o_voxel.errors import ArgumentError

BOX = [[0.0] * 3, [4.0] * 3]


def block() -> tuple[torch.Tensor, torch.Tensor]:
    """The eight voxels of a 2-cube at the origin, lexicographic, with vertices in their middles."""
    coords = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=torch.int32)
    return coords, torch.full((8, 3), 0.5)


def flags(axis: int) -> torch.Tensor:
    out = torch.zeros((8, 3), dtype=torch.bool)
    out[0, axis] = True
    return out


@pytest.mark.parametrize(
    ("axis", "corners"), [(0, [0, 1, 3, 2]), (1, [0, 4, 5, 1]), (2, [0, 2, 6, 4])], ids=["x", "y", "z"]
)
def test_quad_order_and_winding(axis: int, corners: list[int]) -> None:
    coords, dual = block()
    vertices, faces = flexible_dual_grid_to_mesh(coords, dual, flags(axis), None, BOX, grid_size=4)
    a, b, c, d = corners
    assert faces.tolist() == [[a, b, c], [a, c, d]]
    assert faces.dtype == torch.int32
    torch.testing.assert_close(vertices, coords + 0.5)
    triangle = vertices[faces[0].long()]
    normal = torch.linalg.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
    assert float(normal[axis]) < 0


@pytest.mark.parametrize("column", [True, False])
def test_split_follows_the_heavier_diagonal(column: bool) -> None:
    coords, dual = block()
    weight = torch.ones(8)
    weight[[0, 3]] = 2.0  # q0 and q2 of the x quad
    shaped = weight[:, None] if column else weight
    _, faces = flexible_dual_grid_to_mesh(coords, dual, flags(0), shaped, BOX, grid_size=4)
    assert faces.tolist() == [[0, 1, 3], [0, 3, 2]]
    _, tied = flexible_dual_grid_to_mesh(coords, dual, flags(0), torch.ones(8, 1), BOX, grid_size=4)
    assert tied.tolist() == [[0, 1, 2], [2, 1, 3]]


def test_a_missing_neighbour_drops_the_quad_and_keeps_vertices() -> None:
    coords, dual = block()
    keep = torch.tensor([0, 1, 2, 4, 5, 6, 7])  # without (0, 1, 1)
    flag = torch.zeros((8, 3), dtype=torch.bool)
    flag[0] = True
    vertices, faces = flexible_dual_grid_to_mesh(coords[keep], dual[keep], flag[keep], None, BOX, grid_size=4)
    assert len(vertices) == 7
    assert faces.tolist() == [[0, 3, 4], [0, 4, 1], [0, 2, 5], [0, 5, 3]]  # y, then z


def test_edges_at_the_grid_border_make_no_quad() -> None:
    coords = torch.tensor([[3, 3, 3]])
    _, faces = flexible_dual_grid_to_mesh(
        coords, torch.zeros((1, 3)), torch.ones((1, 3)).bool(), None, BOX, grid_size=4
    )
    assert len(faces) == 0


def test_voxel_size_wins() -> None:
    vertices, _ = flexible_dual_grid_to_mesh(
        torch.tensor([[1, 1, 1]]),
        torch.zeros((1, 3)),
        torch.zeros((1, 3)).bool(),
        None,
        BOX,
        voxel_size=0.5,
        grid_size=2,
    )
    assert vertices.tolist() == [[0.5, 0.5, 0.5]]


def test_train_mode_fans_around_the_weighted_middle() -> None:
    coords, dual = block()
    dual = dual.clone().requires_grad_(True)
    weight = torch.ones(8, 1)
    weight[[0, 3]] = 10.0
    weight.requires_grad_(True)
    vertices, faces = flexible_dual_grid_to_mesh(coords, dual, flags(0), weight, BOX, grid_size=4, train=True)
    assert faces.dtype == torch.int64
    assert faces.tolist() == [[0, 1, 8], [1, 3, 8], [3, 2, 8], [2, 0, 8]]
    moved = dual.detach().clone()
    moved[0, 0] += 0.4  # lift one end of the heavy diagonal: the middle follows it
    lifted, _ = flexible_dual_grid_to_mesh(coords, moved, flags(0), weight, BOX, grid_size=4, train=True)
    torch.testing.assert_close(lifted[8, 0] - vertices[8, 0], torch.tensor(0.2 * 100 / 101))
    lifted[8, 0].backward(retain_graph=True)
    vertices[8].sum().backward()
    assert dual.grad is not None
    assert weight.grad is not None
    assert set(dual.grad.abs().sum(dim=1).nonzero()[:, 0].tolist()) == {0, 1, 2, 3}
    assert float(weight.grad.abs().sum()) > 0


def test_empty() -> None:
    none = torch.zeros((0, 3))
    vertices, faces = flexible_dual_grid_to_mesh(none.int(), none, none.bool(), None, BOX, grid_size=4)
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_bad_arguments() -> None:
    coords, dual = block()
    flag = flags(0)
    with pytest.raises(ArgumentError, match="split_weight"):
        flexible_dual_grid_to_mesh(coords, dual, flag, None, BOX, grid_size=4, train=True)
    with pytest.raises(ArgumentError, match="7"):
        flexible_dual_grid_to_mesh(coords, dual, flag, torch.ones(7), BOX, grid_size=4)
    with pytest.raises(ArgumentError, match="dual_vertices"):
        flexible_dual_grid_to_mesh(coords, dual[:3], flag, None, BOX, grid_size=4)
    with pytest.raises(ArgumentError, match="outside"):
        flexible_dual_grid_to_mesh(coords + 3, dual, flag, None, BOX, grid_size=4)
    with pytest.raises(ArgumentError, match="distinct"):
        flexible_dual_grid_to_mesh(coords * 0, dual, flag, None, BOX, grid_size=4)
