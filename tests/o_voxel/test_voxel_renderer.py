"""The voxel renderer: where cubes land, which one wins, depth, supersampling, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from o_voxel.errors import ArgumentError
from o_voxel.rasterize import VoxelRenderer

FOV = math.radians(40)


def camera(distance: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Looking along +y at the origin, z up: extrinsics and intrinsics."""
    extrinsics = torch.eye(4)
    extrinsics[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    extrinsics[2, 3] = distance
    focal = 0.5 / math.tan(FOV / 2)
    return extrinsics, torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])


def test_one_cube_covers_what_it_should() -> None:
    extrinsics, intrinsics = camera()
    side = 64
    image = VoxelRenderer({"resolution": side}).render(
        torch.zeros((1, 3)), torch.tensor([[0.25, 0.5]]), 0.5, extrinsics, intrinsics
    )
    front = 0.25 / (1.75 * math.tan(FOV / 2))  # half width of the near face, of half the image
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    inside = at.abs() < front
    expected = (inside[:, None] & inside[None]).float()
    torch.testing.assert_close(image.alpha, expected)
    torch.testing.assert_close(image["attr"], torch.stack((expected * 0.25, expected * 0.5)))
    assert (image.depth[expected == 0] == 0).all()
    middle = image.depth[side // 2, side // 2]
    assert 1.75 <= float(middle) < 1.7505


def test_the_nearest_cube_wins_and_up_is_up() -> None:
    extrinsics, intrinsics = camera()
    position = torch.tensor([[0.0, 0.2, 0.0], [0.0, -0.2, 0.0], [0.0, 0.0, 0.3]])
    attrs = torch.tensor([[1.0], [2.0], [3.0]])
    image = VoxelRenderer({"resolution": 65}).render(position, attrs, 0.1, extrinsics, intrinsics)
    assert image.attr.shape == (1, 65, 65)
    assert float(image.attr[0, 32, 32]) == 2.0
    rows = (image.attr[0, :, 32] == 3.0).nonzero()[:, 0]
    assert len(rows) > 0
    assert int(rows.max()) < 32  # +z is in the upper half


def test_supersampling_blends_edges_and_keeps_depth() -> None:
    extrinsics, intrinsics = camera()
    options = {"resolution": 33, "ssaa": 3}
    image = VoxelRenderer(options).render(
        torch.zeros((1, 3)), torch.ones((1, 1)), 0.5, extrinsics, intrinsics
    )
    assert image.attr.shape == (1, 33, 33)
    partial = (image.alpha > 0.01) & (image.alpha < 0.99)
    assert bool(partial.any())
    assert float(image.depth[partial].min()) > 1.7  # not pulled towards the background's zero


def test_cubes_behind_the_camera_are_not_drawn() -> None:
    extrinsics, intrinsics = camera()
    position = torch.tensor([[0.0, -3.0, 0.0], [0.0, -1.9, 0.0]])  # view depth -1 and 0.1
    image = VoxelRenderer({"resolution": 16}).render(
        position, torch.ones((2, 1)), 0.1, extrinsics, intrinsics
    )
    assert float(image.alpha.max()) == 0


def test_nothing_and_nonsense_positions() -> None:
    extrinsics, intrinsics = camera()
    renderer = VoxelRenderer({"resolution": 8})
    empty = renderer.render(torch.zeros((0, 3)), torch.zeros((0, 3)), 0.1, extrinsics, intrinsics)
    assert empty.attr.shape == (3, 8, 8)
    assert float(empty.alpha.max()) == 0
    odd = torch.tensor([[float("nan"), 0, 0], [0, float("inf"), 0]])
    assert float(renderer.render(odd, torch.ones((2, 1)), 0.1, extrinsics, intrinsics).alpha.max()) == 0


def test_bad_arguments() -> None:
    extrinsics, intrinsics = camera()
    with pytest.raises(ArgumentError, match="resolutoin"):
        VoxelRenderer({"resolutoin": 4})
    with pytest.raises(ArgumentError, match="resolution"):
        VoxelRenderer({"resolution": 0}).render(
            torch.zeros((1, 3)), torch.ones((1, 1)), 1.0, extrinsics, intrinsics
        )
    with pytest.raises(ArgumentError, match="need"):
        VoxelRenderer().render(torch.zeros((1, 3)), torch.ones((2, 1)), 1.0, extrinsics, intrinsics)
    with pytest.raises(AttributeError):
        _ = (
            VoxelRenderer({"resolution": 2})
            .render(torch.zeros((0, 3)), torch.zeros((0, 1)), 1.0, extrinsics, intrinsics)
            .colour
        )
