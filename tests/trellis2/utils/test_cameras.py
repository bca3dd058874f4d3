"""Cameras by the formulas of their definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis2.renderers.projection import intrinsics_to_projection
from trellis2.utils.cameras import (
    orbit_camera,
    sphere_hammersley_sequence,
    yaw_pitch_r_fov_to_extrinsics_intrinsics,
)


@given(yaw=st.floats(-7, 7), pitch=st.floats(-1.5, 1.5), r=st.floats(0.5, 20), fov=st.floats(5, 120))
@settings(max_examples=50, deadline=None)
def test_the_camera_looks_at_the_origin_with_z_up(yaw: float, pitch: float, r: float, fov: float) -> None:
    extrinsics, intrinsics = orbit_camera(yaw, pitch, r, fov)
    rotation = extrinsics[:3, :3]
    eye = (
        torch.tensor([math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)]) * r
    )
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(rotation @ eye + extrinsics[:3, 3], torch.zeros(3), atol=1e-4 * r)
    assert torch.allclose(extrinsics[:3, 3], torch.tensor([0.0, 0, r]), atol=1e-4 * r)  # the origin is ahead
    up = rotation @ torch.tensor([0.0, 0, 1])
    assert float(up[1]) < 0  # up in the world is up in the picture: -y
    assert abs(float(up[0])) < 1e-5
    focal = 0.5 / math.tan(math.radians(fov) / 2)
    assert torch.allclose(intrinsics, torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]]))


def test_one_camera_written_out() -> None:
    extrinsics, _ = yaw_pitch_r_fov_to_extrinsics_intrinsics(0.0, 0.0, 2.0, 40.0)
    expected = torch.tensor([[-1.0, 0, 0, 0], [0, 0, -1, 0], [0, -1, 0, 2], [0, 0, 0, 1]])
    assert isinstance(extrinsics, torch.Tensor)
    assert torch.allclose(extrinsics, expected, atol=1e-6)


def test_lists_in_lists_out() -> None:
    extrinsics, intrinsics = yaw_pitch_r_fov_to_extrinsics_intrinsics([0.0, 1.0], 0.2, [2.0, 3.0], 40.0)
    assert isinstance(extrinsics, list)
    assert torch.equal(extrinsics[1], orbit_camera(1.0, 0.2, 3.0, 40.0)[0])
    assert len(intrinsics) == 2


def test_projection_matrix() -> None:
    k = torch.tensor([[1.2, 0, 0.5], [0, 1.3, 0.5], [0, 0, 1]])
    p = intrinsics_to_projection(k, 1.0, 100.0)
    expected = torch.tensor([[2.4, 0, 0, 0], [0, 2.6, 0, 0], [0, 0, 101 / 99, -200 / 99], [0, 0, 1, 0]])
    assert torch.allclose(p, expected)
    for z, depth in ((1.0, -1.0), (100.0, 1.0)):
        clip = p @ torch.tensor([0.0, 0, z, 1])
        assert float(clip[2] / clip[3]) == pytest.approx(depth, abs=1e-5)


def test_hammersley() -> None:
    assert sphere_hammersley_sequence(0, 4) == pytest.approx([0.0, -math.pi / 2])
    assert sphere_hammersley_sequence(1, 4) == pytest.approx([math.pi, math.acos(0.5) - math.pi / 2])
    # 6 = 110 in binary, mirrored at the point 0.011 = 3/8
    assert sphere_hammersley_sequence(6, 8) == pytest.approx(
        [2 * math.pi * 3 / 8, math.acos(1 - 2 * 0.75) - math.pi / 2]
    )
    assert sphere_hammersley_sequence(6, 8, (0.8, 0.1)) == pytest.approx(
        [2 * math.pi * (3 / 8 + 0.1), math.acos(1 - 2 * 0.85) - math.pi / 2]
    )
    assert sphere_hammersley_sequence(1, 8, remap=True)[1] == pytest.approx(math.acos(0.5) - math.pi / 2)
    assert sphere_hammersley_sequence(4, 8, remap=True)[1] == pytest.approx(
        math.acos(1 - 2 * (0.5 * 2 / 3 + 1 / 3)) - math.pi / 2
    )
