"""Mask, depth, normals, positions and attributes of plain meshes, without light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from o_voxel.raster import rasterize
from o_voxel.raster.fragments import interpolate_at

from trellis2.errors import InvalidArgumentError
from trellis2.renderers.projection import (
    camera_centre,
    check_camera,
    depth_from_clip,
    intrinsics_to_projection,
    resize,
    transform_points,
)
from trellis2.renderers.rendering import Rendering, parse_options
from trellis2.renderers.shading.normals import face_cross
from trellis2.renderers.surface import pbr_columns
from trellis2.renderers.textures import material_attrs, neighbour_weights
from trellis2.representations import Mesh, MeshWithPbrMaterial, MeshWithVoxel

RETURN_TYPES = ("mask", "normal", "depth", "coord", "attr")
PBR_COLUMNS = {
    "base_color": slice(0, 3),
    "metallic": slice(3, 4),
    "roughness": slice(4, 5),
    "alpha": slice(5, 6),
}


@dataclass(frozen=True)
class MeshOptions:
    """resolution: side of the picture. near, far: clip planes. ssaa: samples a side of a pixel, which is what
    antialiases edges. chunk_size is accepted for compatibility: the rasteriser takes any number of faces.
    """

    resolution: int = 512
    near: float = 1.0
    far: float = 100.0
    ssaa: int = 1
    chunk_size: int | None = None


class MeshRenderer:
    """Renders any mesh, on the device that it is on. Face normals; no gradients."""

    def __init__(self, rendering_options: Mapping[str, Any] | None = None, device: str = "cpu") -> None:
        self.options = parse_options(MeshOptions, rendering_options)
        self.device = device

    def render(
        self,
        mesh: Mesh,
        extrinsics: torch.Tensor,
        intrinsics: torch.Tensor,
        return_types: Sequence[str] = ("mask", "normal", "depth"),
        transformation: torch.Tensor | None = None,
    ) -> Rendering:
        """One view: `mask` [H, W], `depth` [H, W] (camera z, 0 where empty), `normal` [3, H, W] (camera
        space, red left, green up, blue towards the camera, 0.5 where empty), `coord` [3, H, W] (world
        position), and for `attr` the vertex attributes [C, H, W] or one map for each of base_color, metallic,
        roughness and alpha.

        Raises InvalidArgumentError.
        """
        unknown = [t for t in return_types if t not in RETURN_TYPES]
        if unknown:
            raise InvalidArgumentError(f"unknown return types {unknown}; there are {RETURN_TYPES}")
        check_camera(extrinsics, intrinsics)
        device = mesh.vertices.device
        o = self.options
        size = o.resolution * o.ssaa
        extrinsics, intrinsics = extrinsics.to(device, torch.float32), intrinsics.to(device, torch.float32)
        vertices = mesh.vertices.detach().float()
        if transformation is not None:
            m = transformation.to(vertices)
            vertices = vertices @ m[:3, :3].T + m[:3, 3]
        matrix = intrinsics_to_projection(intrinsics, o.near, o.far) @ extrinsics
        clip = transform_points(vertices, matrix)
        fragments = rasterize(clip, mesh.faces, (size, size))
        pixels = torch.nonzero(fragments.face_id.reshape(-1) >= 0).squeeze(1)
        face_id = fragments.face_id.reshape(-1)[pixels]
        barycentric = fragments.barycentric.reshape(-1, 2)[pixels]

        def image(values: torch.Tensor, empty: float = 0.0) -> torch.Tensor:
            buffer = values.new_full((size * size, values.shape[1]), empty)
            buffer[pixels] = values
            return resize(buffer.reshape(size, size, -1).permute(2, 0, 1), o.resolution)

        out = Rendering()
        mask = image(torch.ones_like(barycentric[:, :1]))[0]
        points = interpolate_at(vertices, mesh.faces, face_id, barycentric)
        if "mask" in return_types:
            out["mask"] = mask
        if "depth" in return_types:
            z = depth_from_clip(fragments.depth.reshape(-1)[pixels], o.near, o.far)
            out["depth"] = image(z[:, None])[0] / mask.clamp(min=1e-6)
        if "normal" in return_types:
            normal = _facing(vertices, mesh.faces[face_id.long()], points, extrinsics)
            out["normal"] = image(0.5 - 0.5 * (normal @ extrinsics[:3, :3].T), 0.5)
        if "coord" in return_types:
            out["coord"] = image(points)
        if "attr" in return_types:
            out.update(self._attrs(mesh, clip, pixels, face_id, barycentric, size, image))
        return out

    @staticmethod
    def _attrs(
        mesh: Mesh,
        clip: torch.Tensor,
        pixels: torch.Tensor,
        face_id: torch.Tensor,
        barycentric: torch.Tensor,
        size: int,
        image: Any,
    ) -> dict[str, torch.Tensor]:
        if isinstance(mesh, MeshWithPbrMaterial):
            values = material_attrs(mesh, face_id, neighbour_weights(clip, mesh.faces, face_id, pixels, size))
        elif isinstance(mesh, MeshWithVoxel):
            points = interpolate_at(mesh.vertices.float(), mesh.faces, face_id, barycentric)
            values = pbr_columns(mesh, mesh.query_attrs(points))
        elif mesh.vertex_attrs is not None:
            return {
                "attr": image(interpolate_at(mesh.vertex_attrs.float(), mesh.faces, face_id, barycentric))
            }
        else:
            raise InvalidArgumentError("'attr' was asked for, but the mesh has no vertex attributes")
        maps = {name: image(values[:, columns]) for name, columns in PBR_COLUMNS.items()}
        return {name: m if m.shape[0] == 3 else m[0] for name, m in maps.items()}


def _facing(
    vertices: torch.Tensor, corners: torch.Tensor, points: torch.Tensor, extrinsics: torch.Tensor
) -> torch.Tensor:
    """[P, 3] unit normals of triangles [P, 3], turned towards the eye."""
    normal = F.normalize(face_cross(vertices, corners), dim=-1)
    away = (normal * (points - camera_centre(extrinsics))).sum(-1, keepdim=True) > 0
    return torch.where(away, -normal, normal)
