"""One view of a PBR mesh in the making: layers from front to back, then the finished maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from o_voxel.raster import Fragments, peel

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.environment.envmap import EnvMap
from trellis2.renderers.projection import (
    intrinsics_to_projection,
    pixel_rays,
    resize,
    transform_points,
)
from trellis2.renderers.rendering import Rendering
from trellis2.renderers.shading.model import kernel_tables
from trellis2.renderers.shading.occlusion import BACKGROUND_DEPTH, openness
from trellis2.renderers.shading.tonemap import develop, soft_backdrop
from trellis2.renderers.surface import Geometry, PixelCamera, find_surface, pbr_columns
from trellis2.renderers.textures import material_attrs, neighbour_weights
from trellis2.representations import MeshWithPbrMaterial, MeshWithVoxel

OPAQUE = 1.0 - 0.5 / 255.0
"""Coverage from which a further layer could not change an 8-bit picture."""

OCCLUSION_INTENSITY = 1.5

MAPS = ("normal", "base_color", "metallic", "roughness", "alpha", "mask", "clay", "depth")
COLUMNS = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}


@dataclass(frozen=True)
class PbrOptions:
    """resolution: side of the picture. near, far: clip planes. ssaa: samples a side of a pixel. peel_layers:
    most depth layers, for transparency. flat: the published model's look (face normals, its occlusion) in
    place of smooth shading. background: None for black, "soft" for a light neutral backdrop, or a linear
    RGB triple. occlusion_samples: for each pixel of the picture. seed: of the occlusion samples.

    Occlusion follows the published rule under `flat` and under lights with `reference_quirks`. There slanted
    surfaces hide themselves, a tenth of the light on a convex object; otherwise only what lies in front does.
    """

    resolution: int = 512
    near: float = 1.0
    far: float = 100.0
    ssaa: int = 1
    peel_layers: int = 8
    flat: bool = False
    background: str | tuple[float, float, float] | None = None
    occlusion_samples: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Layer:
    """The surface of one depth layer at its P pixels: all [P, ...]; directions in world space."""

    pixels: torch.Tensor
    normal: torch.Tensor
    to_eye: torch.Tensor
    depth: torch.Tensor
    attrs: torch.Tensor


class Frame:
    """Buffers of one view at the supersampled size; `draw` fills them, `finish` makes the maps."""

    def __init__(
        self,
        options: PbrOptions,
        extrinsics: torch.Tensor,
        intrinsics: torch.Tensor,
        lights: Mapping[str, EnvMap],
        wanted: set[str],
    ) -> None:
        self.options, self.extrinsics, self.intrinsics = options, extrinsics, intrinsics
        self.lights, self.wanted = lights, wanted
        self.size = options.resolution * options.ssaa
        self.device = extrinsics.device
        self.colour = {name: self._buffer(3) for name in lights}
        self.coverage = self._buffer(1)
        self.first: Layer | None = None
        # written wherever there is a first layer, and read nowhere else
        self.heaviest = torch.empty(self.size**2, device=self.device)
        self.front_depth = torch.full((self.size**2,), BACKGROUND_DEPTH, device=self.device)
        self.front_normal = torch.empty((self.size**2, 3), device=self.device)

    def _buffer(self, channels: int) -> torch.Tensor:
        return torch.zeros((self.size * self.size, channels), device=self.device)

    @property
    def lit(self) -> bool:
        """Whether anything is asked for that needs more than the first layer."""
        return bool(self.lights) or "clay" in self.wanted

    def draw(self, mesh: MeshWithVoxel | MeshWithPbrMaterial, geometry: Geometry) -> None:
        """Rasterise, shade and blend, front to back, for as many layers as can still be seen."""
        o = self.options
        matrix = intrinsics_to_projection(self.intrinsics, o.near, o.far) @ self.extrinsics
        clip = transform_points(geometry.vertices, matrix)
        layers = o.peel_layers if self.lit else 1
        for fragments in peel(clip, geometry.faces, (self.size, self.size), layers):
            layer = self._surface(mesh, geometry, clip, fragments)
            if self.first is None:
                self.first = layer
            if not self.lit:
                return
            self._blend(layer)
            seen_through = self.coverage.index_select(0, layer.pixels) < OPAQUE
            if not bool(seen_through.any()):
                return

    def _surface(
        self,
        mesh: MeshWithVoxel | MeshWithPbrMaterial,
        geometry: Geometry,
        clip: torch.Tensor,
        fragments: Fragments,
    ) -> Layer:
        o = self.options
        found = fragments.face_id.reshape(-1) >= 0
        if self.first is not None:
            found &= self.coverage[:, 0] < OPAQUE
        pixels = torch.nonzero(found).squeeze(1)
        camera = PixelCamera(self.extrinsics, self.intrinsics, self.size, o.near, o.far)
        seen = find_surface(geometry, fragments, pixels, camera)
        attrs = seen.attrs
        if not geometry.dense:
            face_id = fragments.face_id.reshape(-1).index_select(0, pixels)
            barycentric = fragments.barycentric.reshape(-1, 2).index_select(0, pixels)
            attrs = self._attrs(mesh, geometry, clip, pixels, face_id, barycentric)
        return Layer(pixels, seen.normal, seen.to_eye, seen.depth, attrs)

    def _attrs(
        self,
        mesh: MeshWithVoxel | MeshWithPbrMaterial,
        geometry: Geometry,
        clip: torch.Tensor,
        pixels: torch.Tensor,
        face_id: torch.Tensor,
        barycentric: torch.Tensor,
    ) -> torch.Tensor:
        """[P, 6] base colour, metallic, roughness, alpha, where vertices do not carry them."""
        from o_voxel.raster.fragments import interpolate_at

        if isinstance(mesh, MeshWithPbrMaterial):
            weights = neighbour_weights(clip, geometry.faces, face_id, pixels, self.size)
            return material_attrs(mesh, face_id, weights)
        # before any transformation: voxels do not move with the vertices
        points = interpolate_at(mesh.vertices.float(), geometry.faces, face_id, barycentric)
        attrs = pbr_columns(mesh, mesh.query_attrs(points))
        empty = torch.nonzero((attrs == 0).all(1)).squeeze(1)
        if empty.numel() and geometry.attrs is not None and not self.options.flat:
            attrs[empty] = interpolate_at(geometry.attrs, geometry.faces, face_id[empty], barycentric[empty])
        return attrs

    def _blend(self, layer: Layer) -> None:
        """Put a layer behind what is there: w = (1 - A) alpha, C += w * radiance, A += w."""
        from o_voxel.kernels import launch

        from trellis2.renderers.shading import shade_kernels

        count = layer.pixels.shape[0]
        pixels, normal, attrs = layer.pixels, layer.normal, layer.attrs
        weight = torch.empty(count, device=self.device)
        inputs = [
            pixels,
            normal,
            layer.depth,
            attrs,
            layer is self.first,
            self.coverage[:, 0],
            self.heaviest,
            self.front_depth,
            self.front_normal,
            weight,
        ]
        launch(shade_kernels.cover, count, inputs, self.device)
        for name, light in self.lights.items():
            points = [pixels, layer.to_eye, normal, attrs, weight]
            tables = [*kernel_tables(light.prepared), light.reference_quirks]
            inputs = [*points, *tables, self.colour[name]]
            launch(shade_kernels.light_up, count, inputs, self.device)

    def finish(self, use_envmap_bg: bool) -> Rendering:
        """The maps that were asked for, at the picture's resolution."""
        out = Rendering()
        if self.lit:
            light_left = self._openness()
            for name in self.lights:
                out[name] = self._picture(name, light_left, use_envmap_bg)
            if "clay" in self.wanted:
                out["clay"] = self._reduce(light_left)[0]
        out.update(self._first_layer_maps())
        return out

    def _openness(self) -> torch.Tensor:
        """1 - occlusion on the object, 0 on the background, [S*S, 1]."""
        if self.first is None:
            return self._buffer(1)
        o = self.options
        published = o.flat or any(light.reference_quirks for light in self.lights.values())
        return openness(
            self.first.pixels,
            self.front_normal,
            self.extrinsics[:3, :3],
            self.front_depth.reshape(self.size, self.size),
            self.intrinsics,
            slope=0.0 if published else 1.0,
            samples=max(1, o.occlusion_samples // o.ssaa**2),
            intensity=OCCLUSION_INTENSITY,
            seed=o.seed,
            smooth=not o.flat,
        )[:, None]

    def _picture(self, name: str, light_left: torch.Tensor, use_envmap_bg: bool) -> torch.Tensor:
        o = self.options
        if not use_envmap_bg:
            return develop(self.colour[name], light_left, self.coverage, o.ssaa, self._backdrop())
        rays = pixel_rays(self.intrinsics, self.size, self.size).reshape(-1, 3)
        sky = self.lights[name].sample(rays @ self.extrinsics[:3, :3])
        colour = self.colour[name] * light_left + (1.0 - self.coverage) * sky
        return develop(colour, torch.ones_like(light_left), self.coverage, o.ssaa, None)

    def _backdrop(self) -> torch.Tensor | None:
        """Linear RGB, [resolution^2, 3] or [1, 3]; None for none."""
        background = self.options.background
        if background is None:
            return None
        if background == "soft":
            return soft_backdrop(self.options.resolution, self.device)
        if isinstance(background, str) or len(background) != 3:
            raise InvalidArgumentError(
                f"background must be None, 'soft' or three numbers, got {background!r}"
            )
        return torch.tensor([background], dtype=torch.float32, device=self.device)

    def _first_layer_maps(self) -> dict[str, torch.Tensor]:
        layer, maps = self.first, {}
        if self.wanted & {"mask", "depth"}:
            mask = self._buffer(1)
            if layer is not None:
                mask[layer.pixels] = 1.0
            covered = self._reduce(mask)[0]
        if "mask" in self.wanted:
            maps["mask"] = covered
        for name, columns in COLUMNS.items():
            if name in self.wanted:
                buffer = self._buffer(columns.stop - columns.start)
                if layer is not None:
                    buffer.index_copy_(0, layer.pixels, layer.attrs[:, columns].contiguous())
                image = self._reduce(buffer)
                maps[name] = image if image.shape[0] == 3 else image[0]
        if "normal" in self.wanted:
            buffer = self._buffer(3) + 0.5
            if layer is not None:
                buffer.index_copy_(0, layer.pixels, 0.5 - 0.5 * (layer.normal @ self.extrinsics[:3, :3].T))
            maps["normal"] = self._reduce(buffer)
        if "depth" in self.wanted:
            buffer = self._buffer(1)
            if layer is not None:
                buffer.index_copy_(0, layer.pixels, layer.depth[:, None])
            # the mean over the covered samples only: no in-between depths at edges
            maps["depth"] = self._reduce(buffer)[0] / covered.clamp(min=1e-6)
        return maps

    def _reduce(self, buffer: torch.Tensor) -> torch.Tensor:
        """[S*S, C] to [C, resolution, resolution]."""
        image = buffer.reshape(self.size, self.size, -1).permute(2, 0, 1)
        return resize(image, self.options.resolution)
