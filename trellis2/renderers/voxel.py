"""Pictures of voxels as cubes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.projection import check_camera
from trellis2.renderers.rendering import Rendering, parse_options
from trellis2.representations import Voxel


@dataclass(frozen=True)
class VoxelOptions:
    """resolution: side of the picture. near, far: what is drawn along the view. ssaa: samples a side of a
    pixel.
    """

    resolution: int = 512
    near: float = 0.1
    far: float = 10.0
    ssaa: int = 1


class VoxelRenderer:
    """Renders `Voxel` objects through `o_voxel.rasterize.VoxelRenderer`."""

    def __init__(self, rendering_options: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.options = parse_options(VoxelOptions, rendering_options)
        self.device = device

    def render(
        self,
        voxel: Voxel,
        extrinsics: torch.Tensor,
        intrinsics: torch.Tensor,
        colors_overwrite: torch.Tensor | None = None,
    ) -> Rendering:
        """One view: `depth` and `alpha` [H, W], and `color` [C, H, W] from `colors_overwrite` [N, C] or one
        map for each entry of the voxels' layout. Raises InvalidArgumentError.
        """
        from o_voxel.rasterize import VoxelRenderer as CubeRenderer

        check_camera(extrinsics, intrinsics)
        attrs = voxel.attrs if colors_overwrite is None else colors_overwrite
        if attrs.shape[0] != voxel.coords.shape[0]:
            raise InvalidArgumentError(f"{attrs.shape[0]} colours for {voxel.coords.shape[0]} voxels")
        o = self.options
        cubes = CubeRenderer({"resolution": o.resolution, "near": o.near, "far": o.far, "ssaa": o.ssaa})
        device = voxel.coords.device
        drawn = cubes.render(
            voxel.position.float(),
            attrs.float(),
            voxel.voxel_size,
            extrinsics.to(device, torch.float32),
            intrinsics.to(device, torch.float32),
        )
        out = Rendering(depth=drawn["depth"], alpha=drawn["alpha"])
        image = drawn["attr"].reshape(attrs.shape[1], o.resolution, o.resolution)
        if colors_overwrite is not None:
            out["color"] = image
        else:
            out.update({name: image[columns] for name, columns in voxel.layout.items()})
        return out
