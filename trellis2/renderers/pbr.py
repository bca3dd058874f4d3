"""Lit pictures of meshes with PBR attributes, and the maps beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.environment.envmap import EnvMap
from trellis2.renderers.frame import MAPS, Frame, PbrOptions
from trellis2.renderers.projection import check_camera
from trellis2.renderers.rendering import Rendering, parse_options
from trellis2.renderers.surface import GeometryCache
from trellis2.representations import MeshWithPbrMaterial, MeshWithVoxel


class PbrMeshRenderer:
    """Renders MeshWithVoxel and MeshWithPbrMaterial under environment light, on the device of the mesh.

    rendering_options: fields of `PbrOptions`; an unknown one raises InvalidArgumentError.
    """

    def __init__(self, rendering_options: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.options = parse_options(PbrOptions, rendering_options)
        self.device = device
        self._cache = GeometryCache()

    def render(
        self,
        mesh: MeshWithVoxel | MeshWithPbrMaterial,
        extrinsics: torch.Tensor,
        intrinsics: torch.Tensor,
        envmap: EnvMap | Mapping[str, EnvMap],
        use_envmap_bg: bool = False,
        transformation: torch.Tensor | None = None,
        keys: Collection[str] | None = None,
    ) -> Rendering:
        """One view.

        extrinsics [4, 4] world to OpenCV camera, intrinsics [3, 3] normalised to an image of size 1. Several
        named environments give `shaded_<name>` each. Returns float maps, row 0 on top: `shaded` [3, H, W]
        (display values 0..1), `normal` [3, H, W] (red left, green up, blue towards the camera, 0.5 where
        empty), `base_color` [3, H, W], `metallic`, `roughness`, `alpha`, `mask`, `clay`, `depth` [H, W]
        (camera z, 0 where empty). `keys` limits the work to some of them. Raises InvalidArgumentError.
        """
        if not isinstance(mesh, (MeshWithVoxel, MeshWithPbrMaterial)):
            raise InvalidArgumentError(f"{type(mesh).__name__} has no PBR attributes; use MeshRenderer")
        check_camera(extrinsics, intrinsics)
        if isinstance(envmap, Mapping):
            lights = {f"shaded_{name}": light for name, light in envmap.items()}
        else:
            lights = {"shaded": envmap}
        wanted = _wanted(keys, lights)
        device = mesh.vertices.device
        frame = Frame(
            self.options,
            extrinsics.to(device, torch.float32),
            intrinsics.to(device, torch.float32),
            {k: v.to(device) for k, v in lights.items() if k in wanted},
            wanted,
        )
        if mesh.faces.shape[0] and mesh.vertices.shape[0]:
            geometry = self._cache.get(mesh, transformation, self.options.flat)
            frame.draw(mesh, geometry)
        return frame.finish(use_envmap_bg)


def _wanted(keys: Collection[str] | None, lights: Mapping[str, EnvMap]) -> set[str]:
    known = {*MAPS, *lights}
    if keys is None:
        return known
    unknown = set(keys) - known
    if unknown:
        raise InvalidArgumentError(f"no such map: {sorted(unknown)}; there are {sorted(known)}")
    return set(keys)
