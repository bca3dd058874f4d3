"""Completing a grid's description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from o_voxel.convert.frame import grid_frame
from o_voxel.errors import ArgumentError

BOX = [[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]]


def test_from_voxel_size() -> None:
    frame = grid_frame(voxel_size=0.25, aabb=BOX)
    assert frame.grid_size == (4, 8, 16)
    assert frame.voxel_size.tolist() == [0.25] * 3


@pytest.mark.parametrize("grid", [8, 8.0, [8, 8, 8], np.array([8, 8, 8]), torch.tensor([8, 8, 8])])
def test_from_grid_size_of_any_kind(grid: object) -> None:
    frame = grid_frame(grid_size=grid, aabb=np.array(BOX))  # type: ignore[arg-type]
    assert frame.grid_size == (8, 8, 8)
    assert frame.voxel_size.tolist() == [0.125, 0.25, 0.5]


def test_both_sizes() -> None:
    assert grid_frame(0.5, 3, BOX).grid_size == (3, 3, 3)
    assert grid_frame(0.5, 3, BOX, voxel_size_wins=True).grid_size == (2, 4, 8)


def test_box_of_vertices_with_grid_size_leaves_half_a_voxel() -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    frame = grid_frame(grid_size=10, vertices=vertices)
    assert frame.aabb.tolist() == [[-0.5] * 3, [9.5] * 3]
    assert frame.voxel_size.tolist() == [1.0] * 3


def test_box_of_vertices_with_voxel_size_holds_whole_voxels() -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [0.9, 1.0, 2.3]])
    frame = grid_frame(voxel_size=0.5, vertices=vertices)
    assert frame.grid_size == (2, 2, 5)
    torch.testing.assert_close(frame.aabb[1] - frame.aabb[0], torch.tensor([1.0, 1.0, 2.5]))


@pytest.mark.parametrize(
    "bad",
    [
        {"aabb": BOX},
        {"aabb": BOX, "grid_size": 0},
        {"aabb": BOX, "grid_size": -4},
        {"aabb": BOX, "grid_size": 1 << 20},
        {"aabb": BOX, "voxel_size": 1e-9},
        {"aabb": BOX, "voxel_size": float("nan")},
        {"aabb": BOX, "voxel_size": [0.1, 0.2]},
        {"aabb": [[0, 0, 0], [1, 1, 0]], "grid_size": 4},
        {"aabb": [[0, 0, 0], [1, 1, float("inf")]], "grid_size": 4},
        {"aabb": [[0, 0], [1, 1]], "grid_size": 4},
        {"grid_size": 4},
    ],
)
def test_bad_arguments(bad: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        grid_frame(**bad)  # type: ignore[arg-type]
