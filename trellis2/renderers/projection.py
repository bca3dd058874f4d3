"""From world to clip space for the rasteriser, and rays back."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from trellis2.errors import InvalidArgumentError


def check_camera(extrinsics: torch.Tensor, intrinsics: torch.Tensor) -> None:
    """Raises InvalidArgumentError unless extrinsics are [4, 4] and intrinsics [3, 3], both finite."""
    if extrinsics.shape != (4, 4) or intrinsics.shape != (3, 3):
        raise InvalidArgumentError(
            f"a camera is extrinsics [4, 4] and intrinsics [3, 3], got {list(extrinsics.shape)} and "
            f"{list(intrinsics.shape)}: render one view at a time"
        )
    if not bool(torch.isfinite(extrinsics).all() and torch.isfinite(intrinsics).all()):
        raise InvalidArgumentError("the camera holds NaN or infinity (it looks along its own up vector?)")


def intrinsics_to_projection(intrinsics: torch.Tensor, near: float, far: float) -> torch.Tensor:
    """[4, 4] clip matrix for OpenCV camera coordinates, from intrinsics normalised to an image of size 1.

    +y in clip space is down: row 0 of the raster is the top of the picture.
    """
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    projection = torch.zeros((4, 4), dtype=intrinsics.dtype, device=intrinsics.device)
    projection[0, 0] = 2.0 * fx
    projection[0, 2] = 2.0 * cx - 1.0
    projection[1, 1] = 2.0 * fy
    projection[1, 2] = 1.0 - 2.0 * cy
    projection[2, 2] = (far + near) / (far - near)
    projection[2, 3] = 2.0 * near * far / (near - far)
    projection[3, 2] = 1.0
    return projection


def transform_points(points: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Points [P, 3] through a [4, 4] matrix to homogeneous [P, 4]."""
    return torch.addmm(matrix[:, 3], points, matrix[:, :3].T)


def camera_centre(extrinsics: torch.Tensor) -> torch.Tensor:
    """The eye in world space, [3]."""
    return -extrinsics[:3, :3].T @ extrinsics[:3, 3]


def pixel_rays(intrinsics: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Camera-space rays through pixel centres with z = 1, [H, W, 3]."""
    device = intrinsics.device
    x = ((torch.arange(width, device=device) + 0.5) / width - intrinsics[0, 2]) / intrinsics[0, 0]
    y = ((torch.arange(height, device=device) + 0.5) / height - intrinsics[1, 2]) / intrinsics[1, 1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1)


def depth_from_clip(clip_depth: torch.Tensor, near: float, far: float) -> torch.Tensor:
    """Camera z from z/w."""
    return 2.0 * near * far / ((far + near) - clip_depth * (far - near))


def resize(image: torch.Tensor, size: int) -> torch.Tensor:
    """[C, H, W] to [C, size, size] with antialiased bilinear filtering."""
    if image.shape[1] == size:
        return image
    return F.interpolate(image[None], size=(size, size), mode="bilinear", antialias=True)[0]
