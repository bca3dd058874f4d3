"""Cameras that people give: what is refused, and where named views stand."""

from __future__ import annotations

import math

import pytest
import torch

from trellis2.conditioning.camera import (
    DIRECTIONS,
    MAX_VIEWS,
    Camera,
    camera_from_matrix,
    check_cameras,
    front_camera,
    front_matrix,
    in_main_frame,
    named_camera,
    project,
    token_points,
)
from trellis2.errors import InvalidCameraError


def rigid(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3))
    matrix = torch.eye(4)
    matrix[:3, :3] = q * torch.linalg.det(q)
    return matrix


@pytest.mark.parametrize("degrees", [0, 180, -10, 200, math.nan])
def test_a_field_of_view_must_be_one(degrees: float) -> None:
    with pytest.raises(InvalidCameraError, match="between 0 and 180"):
        front_camera(math.radians(degrees))


def test_a_mirrored_scaled_or_sheared_matrix_is_refused() -> None:
    for change in (torch.diag(torch.tensor([-1.0, 1, 1, 1])), torch.diag(torch.tensor([2.0, 2, 2, 1]))):
        with pytest.raises(InvalidCameraError, match="no rotation"):
            camera_from_matrix((rigid(0) @ change).tolist(), 1.0)
    sheared = rigid(1)
    sheared[0, 1] += 0.2
    with pytest.raises(InvalidCameraError, match="no rotation"):
        camera_from_matrix(sheared.tolist(), 1.0)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (torch.eye(3).tolist(), "4x4"),
        ([[1, 2], [3]], "four rows"),
        (torch.full((4, 4), math.nan).tolist(), "NaN"),
        ((torch.eye(4) + torch.eye(4).roll(1, 0)).tolist(), "last row"),
    ],
)
def test_what_is_no_matrix_is_refused(matrix: list, says: str) -> None:
    with pytest.raises(InvalidCameraError, match=says):
        camera_from_matrix(matrix, 1.0)


def test_a_camera_must_see_the_cube() -> None:
    turned_away = front_matrix(2.0) @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    aside = front_matrix(2.0)
    aside[0, 3] = 5.0
    for camera, says in [
        (Camera(turned_away, 0.8), "behind it"),
        (Camera(front_matrix(0.3), 0.8), "move it back"),
        (front_camera(math.radians(120)), "move it back"),
        (Camera(aside, 0.3), "outside its frame"),
    ]:
        with pytest.raises(InvalidCameraError, match=says):
            check_cameras([camera])
    off = front_matrix(2.0)
    off[0, 3] = 0.3
    with pytest.raises(InvalidCameraError, match="look at the object's centre"):
        check_cameras([Camera(off, 0.8)])
    check_cameras([front_camera(0.8), Camera(off, 0.8)])  # only the main view must


def test_the_number_of_views() -> None:
    for count in (0, MAX_VIEWS + 1):
        with pytest.raises(InvalidCameraError, match=f"{count} views"):
            check_cameras([front_camera()] * count)


def test_named_views_show_the_objects_own_sides() -> None:
    # The object faces -y; its own left hand is on +x.
    sides = {"front": [0, -0.5, 0], "left": [0.5, 0, 0], "back": [0, 0.5, 0], "right": [-0.5, 0, 0]}
    assert sides.keys() == DIRECTIONS.keys()
    for name, side in sides.items():
        camera = named_camera(name)
        check_cameras([camera])
        towards, away = torch.tensor([side]), -torch.tensor([side])
        (near, d0), (_, d1) = project(towards, camera, 1.0), project(away, camera, 1.0)
        assert d0 < d1
        torch.testing.assert_close(near, torch.tensor([[0.5, 0.5]]), atol=1e-5, rtol=0)
        up, _ = project(torch.tensor([[0.0, 0, 0.5]]), camera, 1.0)
        torch.testing.assert_close(up, torch.tensor([[0.5, 0.5 - 0.5 / 1.1]]), atol=1e-5, rtol=0)


def test_cameras_move_together_into_the_main_view() -> None:
    posed = [named_camera(n) for n in ("right", "front", "back")]
    moved = in_main_frame(posed)
    torch.testing.assert_close(moved[0].camera_to_world, front_matrix(posed[0].distance))
    for a, b in zip(posed, moved, strict=True):
        relative = torch.linalg.inv(posed[0].camera_to_world) @ a.camera_to_world
        torch.testing.assert_close(
            torch.linalg.inv(moved[0].camera_to_world) @ b.camera_to_world, relative, atol=1e-5, rtol=0
        )


def test_tokens_reach_the_faces_of_the_cube() -> None:
    points = token_points(torch.tensor([[0, 0, 0], [3, 3, 3]]), 4)
    torch.testing.assert_close(points, torch.tensor([[-0.5, 0.5, -0.5], [0.5, -0.5, 0.5]]))
