"""Pictures of voxels as opaque cubes: one ray a pixel, the nearest cube wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import ArgumentError

NEAREST_CENTRE = 0.2
"""Voxels whose centre is closer to the camera plane than this are not drawn."""
MAX_SIDE = 1 << 14


class VoxelImages(dict[str, Tensor]):
    """Images by name, also as attributes: `attr [C, H, W]`, `depth [H, W]`, `alpha [H, W]`, float32."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class VoxelRenderer:
    """Renders voxels from a camera, on the device of the voxels.

    Args:
        rendering_options: `resolution` (pixels a side), `ssaa` (samples a pixel side, averaged), `near` and
            `far` (kept for callers that set them; every voxel ahead of the camera is drawn).
    Raises:
        ArgumentError: an unknown option.
    """

    def __init__(self, rendering_options: Mapping[str, Any] | None = None) -> None:
        self.rendering_options: dict[str, Any] = {"resolution": 512, "near": 0.1, "far": 10.0, "ssaa": 1}
        unknown = set(rendering_options or {}) - set(self.rendering_options)
        if unknown:
            known = ", ".join(self.rendering_options)
            raise ArgumentError(f"unknown options {sorted(unknown)}: use {known}")
        self.rendering_options.update(rendering_options or {})

    def render(
        self,
        position: Tensor,
        attrs: Tensor,
        voxel_size: float | Tensor,
        extrinsics: Tensor,
        intrinsics: Tensor,
    ) -> VoxelImages:
        """Draw the voxels.

        Args:
            position: voxel centres, `[N, 3]`, world units.
            attrs: `[N, C]`.
            voxel_size: side of the cubes, one number or three.
            extrinsics: world to camera (x right, y down, z forward), `[4, 4]`.
            intrinsics: `[3, 3]` for an image of side 1.
        Returns:
            `attr` of the nearest cube (0 without one), `depth` along the pixel's ray to where it enters the
            cube (0 without one), `alpha` the share of the pixel that is covered. Row 0 is the top.
        Raises:
            ArgumentError: shapes that disagree, a resolution out of range.
        """
        side, samples = self._checked(position, attrs)
        device = position.device
        camera = extrinsics.to(device, torch.float32)
        centre = position.float() @ camera[:3, :3].T + camera[:3, 3]
        drawn = (torch.isfinite(centre).all(dim=1) & (centre[:, 2] > NEAREST_CENTRE)).nonzero(as_tuple=True)[
            0
        ]
        origin, rays = pixel_rays(camera, intrinsics.to(device, torch.float32), side * samples)
        voxel, depth = first_hits(position.float()[drawn], voxel_size, origin, rays)

        hit = voxel >= 0
        picture = attrs.new_zeros((len(rays), attrs.shape[1]), dtype=torch.float32)
        picture[hit] = attrs.float()[drawn[voxel[hit]]]
        layers = torch.cat((picture.T, (depth * hit)[None], hit.float()[None]))
        layers = layers.view(1, -1, side * samples, side * samples)
        if samples > 1:
            layers = torch.nn.functional.interpolate(layers, (side, side), mode="bilinear", antialias=True)
        alpha = layers[0, -1]
        # The mean depth of the samples that hit something, not of the background too.
        mean_depth = torch.where(alpha > 0, layers[0, -2] / alpha.clamp(min=1e-6), 0.0)
        return VoxelImages(attr=layers[0, :-2], depth=mean_depth, alpha=alpha)

    def _checked(self, position: Tensor, attrs: Tensor) -> tuple[int, int]:
        side, samples = int(self.rendering_options["resolution"]), int(self.rendering_options["ssaa"])
        if side < 1 or samples < 1 or side * samples > MAX_SIDE:
            raise ArgumentError(f"resolution {side} times ssaa {samples} must be 1 to {MAX_SIDE}")
        if position.dim() != 2 or position.shape[1] != 3 or attrs.dim() != 2 or len(attrs) != len(position):
            raise ArgumentError(
                f"position {tuple(position.shape)}, attrs {tuple(attrs.shape)}: need [N, 3], [N, C]"
            )
        return side, samples


def pixel_rays(extrinsics: Tensor, intrinsics: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Camera position `[3]` and unit directions through pixel centres `[side * side, 3]`, in the world."""
    at = (torch.arange(side, device=extrinsics.device) + 0.5) / side
    x = (at - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (at - intrinsics[1, 2]) / intrinsics[1, 1]
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    rays = torch.stack((grid_x, grid_y, torch.ones_like(grid_x)), dim=-1).view(-1, 3)
    to_world = extrinsics[:3, :3].T
    return -to_world @ extrinsics[:3, 3], torch.nn.functional.normalize(rays @ to_world.T, dim=1)


def first_hits(
    centres: Tensor, voxel_size: float | Tensor, origin: Tensor, rays: Tensor
) -> tuple[Tensor, Tensor]:
    """The cube that each ray enters first (int64 `[R]`, -1 for none) and the distance to its entry."""
    device = centres.device
    voxel = torch.full((len(rays),), -1, dtype=torch.int32, device=device)
    depth = torch.zeros(len(rays), device=device)
    if len(centres) and len(rays):
        from .kernels import as_warp, current_stream, launch, warp_module

        wp = warp_module()
        from .rasterize_kernels import nearest_cube

        half = torch.as_tensor(voxel_size, dtype=torch.float32, device=device).expand(3) / 2
        low, high = as_warp(centres - half, wp.vec3), as_warp(centres + half, wp.vec3)
        with current_stream(device):
            tree = wp.Bvh(low, high)
        inputs = [tree.id, wp.vec3(*origin.tolist()), low, high, rays, voxel, depth]
        launch(nearest_cube, len(rays), inputs, device)
    return voxel.long(), depth
