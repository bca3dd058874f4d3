"""Cameras around the object: OpenCV convention (x right, y down, z ahead), world Z up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def look_at(eye: torch.Tensor, target: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """[4, 4] world to camera. Undefined (NaN) when looking along `up`."""
    z = F.normalize(target - eye, dim=0, eps=0.0)
    x = F.normalize(torch.linalg.cross(-up, z), dim=0, eps=0.0)
    y = F.normalize(torch.linalg.cross(z, x), dim=0, eps=0.0)
    rotation = torch.stack([x, y, z])
    extrinsics = torch.eye(4)
    extrinsics[:3, :3] = rotation
    extrinsics[:3, 3] = -rotation @ eye
    return extrinsics


def intrinsics_from_fov(fov: float) -> torch.Tensor:
    """[3, 3] for an image of size 1, field of view in radians, both ways the same."""
    focal = 0.5 / math.tan(fov / 2.0)
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def orbit_camera(yaw: float, pitch: float, r: float, fov: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Extrinsics and intrinsics of an eye at distance r that looks at the origin; yaw, pitch in radians, fov
    degrees.
    """
    eye = r * torch.tensor(
        [math.sin(yaw) * math.cos(pitch), math.cos(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    extrinsics = look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    return extrinsics, intrinsics_from_fov(math.radians(fov))


def yaw_pitch_r_fov_to_extrinsics_intrinsics(
    yaws: float | Sequence[float],
    pitchs: float | Sequence[float],
    rs: float | Sequence[float],
    fovs: float | Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor] | tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Cameras on a sphere; a number for yaws gives one camera, a list gives lists (numbers among them
    repeat).
    """
    if not isinstance(yaws, Sequence):
        return orbit_camera(yaws, _first(pitchs), _first(rs), _first(fovs))
    count = len(yaws)
    rows = zip(yaws, *(_repeat(v, count) for v in (pitchs, rs, fovs)), strict=True)
    cameras = [orbit_camera(*row) for row in rows]
    return [e for e, _ in cameras], [k for _, k in cameras]


def _first(value: float | Sequence[float]) -> float:
    return value[0] if isinstance(value, Sequence) else value


def _repeat(value: float | Sequence[float], count: int) -> Sequence[float]:
    return value if isinstance(value, Sequence) else [value] * count


def radical_inverse(n: int) -> float:
    """n's binary digits mirrored at the point."""
    value, digit = 0.0, 0.5
    while n:
        value += digit * (n & 1)
        n >>= 1
        digit *= 0.5
    return value


def sphere_hammersley_sequence(
    n: int, num_samples: int, offset: tuple[float, float] = (0.0, 0.0), remap: bool = False
) -> list[float]:
    """[yaw, pitch] in radians of point n of num_samples evenly spread directions; remap: fewer low ones."""
    u = n / num_samples + offset[0] / num_samples
    v = radical_inverse(n) + offset[1]
    if remap:
        u = 2.0 * u if u < 0.25 else 2.0 / 3.0 * u + 1.0 / 3.0
    return [2.0 * math.pi * v, math.acos(1.0 - 2.0 * u) - math.pi / 2.0]
