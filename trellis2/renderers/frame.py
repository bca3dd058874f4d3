"""One view of a PBR mesh in the making: layers from front to back, then the finished maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from o_voxel.raster import Fragments, peel

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.envmap import EnvMap
from trellis2.renderers.occlusion import BACKGROUND_DEPTH, occlusion
from trellis2.renderers.projection import (
    intrinsics_to_projection,
    pixel_rays,
    resize,
    transform_points,
)
from trellis2.renderers.rendering import Rendering
from trellis2.renderers.surface import Geometry, PixelCamera, find_surface, pbr_columns, vertex_attrs
from trellis2.renderers.textures import material_attrs, neighbour_weights
from trellis2.renderers.tonemap import aces, encode, soft_backdrop
from trellis2.representations import MeshWithPbrMaterial, MeshWithVoxel

OPAQUE = 1.0 - 0.5 / 255.0
"""Coverage from which a further layer could not change an 8-bit picture."""

OCCLUSION_INTENSITY = 1.5

MAPS = ("normal", "base_color", "metallic", "roughness", "alpha", "mask", "clay", "depth")
COLUMNS = {"base_color": slice(0, 3), "metallic": slice(3, 4), "roughness": slice(4, 5), "alpha": slice(5, 6)}


@dataclass(frozen=True)
class PbrOptions:
    """resolution: side of the picture. near, far: clip planes. ssaa: samples a side of a pixel. peel_layers:
    most depth layers, for transparency. flat: the published model's look (face normals, raw occlusion margin)
    in place of smooth shading. background: None for black, "soft" for a light neutral backdrop, or a linear
    RGB triple. occlusion_samples: for each pixel of the picture. seed: of the occlusion samples.
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
        self.heaviest = self._buffer(1)
        self.front_depth = torch.full((self.size**2,), BACKGROUND_DEPTH, device=self.device)
        self.front_normal = self._buffer(3)

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
        if geometry.attrs is None:
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
        if empty.numel() and not self.options.flat:
            known = vertex_attrs(mesh)
            attrs[empty] = interpolate_at(known, geometry.faces, face_id[empty], barycentric[empty])
        return attrs

    def _blend(self, layer: Layer) -> None:
        """Put a layer behind what is there: w = (1 - A) alpha, C += w * radiance, A += w."""
        attrs = layer.attrs.clamp(0.0, 1.0)
        covered = self.coverage.index_select(0, layer.pixels)
        weight = (1.0 - covered) * attrs[:, 5:6]
        self.coverage.index_copy_(0, layer.pixels, covered + weight)
        if self.lights:
            kd = attrs[:, 0:3] ** 2.2
            ks = torch.cat([torch.zeros_like(weight), attrs[:, 4:5], attrs[:, 3:4]], 1)
        for name, light in self.lights.items():
            radiance = light.shade_points(layer.to_eye, layer.normal, kd, ks) * weight
            if layer is self.first:
                self.colour[name].index_copy_(0, layer.pixels, radiance)
            else:
                self.colour[name].index_add_(0, layer.pixels, radiance)
        # the layer that shows most stands for the pixel in the occlusion pass
        if layer is self.first:
            pixels, depth, normal = layer.pixels, layer.depth, layer.normal
        else:
            heavier = weight[:, 0] > self.heaviest[:, 0].index_select(0, layer.pixels)
            rows = torch.nonzero(heavier).squeeze(1)
            pixels, depth, normal = layer.pixels[rows], layer.depth[rows], layer.normal[rows]
            weight = weight[rows]
        self.heaviest.index_copy_(0, pixels, weight)
        self.front_depth.index_copy_(0, pixels, depth)
        self.front_normal.index_copy_(0, pixels, normal)

    def finish(self, use_envmap_bg: bool) -> Rendering:
        """The maps that were asked for, at the picture's resolution."""
        out = Rendering()
        if self.lit:
            openness = self._openness()
            for name in self.lights:
                out[name] = self._picture(name, openness, use_envmap_bg)
            if "clay" in self.wanted:
                out["clay"] = self._reduce(openness)[0]
        out.update(self._first_layer_maps())
        return out

    def _openness(self) -> torch.Tensor:
        """1 - occlusion on the object, 0 on the background, [S*S, 1]."""
        openness = self._buffer(1)
        if self.first is None:
            return openness
        o = self.options
        pixels = torch.nonzero(self.front_depth < BACKGROUND_DEPTH).squeeze(1)
        blocked = occlusion(
            pixels,
            self.front_normal.index_select(0, pixels) @ self.extrinsics[:3, :3].T,
            self.front_depth.reshape(self.size, self.size),
            self.intrinsics,
            slope=0.0 if o.flat else 1.0,
            samples=max(1, o.occlusion_samples // o.ssaa**2),
            intensity=OCCLUSION_INTENSITY,
            seed=o.seed,
            smooth=not o.flat,
        )
        return openness.index_copy_(0, pixels, 1.0 - blocked[:, None])

    def _picture(self, name: str, openness: torch.Tensor, use_envmap_bg: bool) -> torch.Tensor:
        colour = self.colour[name]
        if self.first is not None:
            colour = colour * openness
        if use_envmap_bg:
            rays = pixel_rays(self.intrinsics, self.size, self.size).reshape(-1, 3)
            sky = self.lights[name].sample(rays @ self.extrinsics[:3, :3])
            colour = colour + (1.0 - self.coverage) * sky
        colour = self._reduce(colour)
        if use_envmap_bg or self.options.background is None:
            return encode(aces(colour.clamp(min=0.0)))
        # light leaves the tone curve before it mixes with the backdrop, or edges would glow
        coverage = self._reduce(self.coverage)
        display = aces(colour.clamp(min=0.0) / coverage.clamp(min=1e-4))
        return encode(display * coverage + self._backdrop() * (1.0 - coverage))

    def _backdrop(self) -> torch.Tensor:
        background = self.options.background
        if background == "soft":
            return soft_backdrop(self.options.resolution, self.device)
        if isinstance(background, str) or background is None or len(background) != 3:
            raise InvalidArgumentError(
                f"background must be None, 'soft' or three numbers, got {background!r}"
            )
        return torch.tensor(background, dtype=torch.float32, device=self.device)[:, None, None]

    def _first_layer_maps(self) -> dict[str, torch.Tensor]:
        layer, maps = self.first, {}
        mask = self._buffer(1)
        if layer is not None:
            mask[layer.pixels] = 1.0
        reduced = self._reduce(mask)[0]
        if "mask" in self.wanted:
            maps["mask"] = reduced
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
            maps["depth"] = self._reduce(buffer)[0] / reduced.clamp(min=1e-6)
        return maps

    def _reduce(self, buffer: torch.Tensor) -> torch.Tensor:
        """[S*S, C] to [C, resolution, resolution]."""
        image = buffer.reshape(self.size, self.size, -1).permute(2, 0, 1)
        return resize(image, self.options.resolution)
