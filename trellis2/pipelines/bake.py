"""Attribute voxels to the textures of a mesh that lies inside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import trimesh


def bake_texture(
    mesh: trimesh.Trimesh,
    coords: torch.Tensor,
    attrs: torch.Tensor,
    layout: Mapping[str, slice],
    resolution: int,
    texture_size: int,
) -> trimesh.Trimesh:
    """A textured copy of a mesh in the unit cube (Z up in, Y up out).

    coords `[N, 3]` and attrs `[N, 6]` are voxels of a `resolution`³ grid over the cube. The mesh's own UVs
    are used where it has them. Texels between charts take the nearest baked one.
    """
    from o_voxel.postprocess.textures.gutters import fill, nearest_covered
    from o_voxel.raster import interpolate, rasterize_uv
    from o_voxel.sampling import VoxelGrid, sample_trilinear

    vertices, faces, normals, uvs = unwrapped(mesh, texture_size)
    fragments = rasterize_uv(uvs, faces, (texture_size, texture_size))
    covered = fragments.mask
    positions = interpolate(vertices, faces, fragments)[covered]  # [P, 3]
    grid = VoxelGrid(coords, (resolution,) * 3)
    colours = sample_trilinear(grid, attrs.float(), ((positions + 0.5) * resolution).to(attrs.device)).cpu()
    texture = torch.zeros(texture_size, texture_size, attrs.shape[1])
    texture[covered] = colours
    texture = fill(texture, nearest_covered(covered))
    return textured_mesh(vertices, faces, normals, uvs, texture, layout)


def unwrapped(
    mesh: trimesh.Trimesh, texture_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, faces, vertex normals and UVs (row 0 at v = 0) of a mesh; unwraps where it has none."""
    from o_voxel.mesh import unwrap, vertex_normals

    vertices = torch.from_numpy(np.array(mesh.vertices, dtype=np.float32))
    faces = torch.from_numpy(np.array(mesh.faces, dtype=np.int32))
    normals = vertex_normals(vertices, faces)
    own = getattr(mesh.visual, "uv", None)
    if own is not None and len(own) == len(vertices):
        uvs = torch.from_numpy(np.array(own, dtype=np.float32))
        uvs[:, 1] = 1 - uvs[:, 1]
        return vertices, faces, normals, uvs
    flat = unwrap(vertices, faces, texture_size=texture_size)
    return flat.vertices, flat.faces, normals[flat.vmap], flat.uvs


def textured_mesh(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    normals: torch.Tensor,
    uvs: torch.Tensor,
    texture: torch.Tensor,
    layout: Mapping[str, slice],
) -> trimesh.Trimesh:
    """The mesh with glTF's metallic-roughness material from a baked texture `[H, W, 6]` in 0..1."""
    import trimesh
    from PIL import Image
    from trimesh.visual.material import PBRMaterial

    pixels = {name: (texture[..., c] * 255).clamp(0, 255).byte().numpy() for name, c in layout.items()}
    base_color = np.concatenate([pixels["base_color"], pixels["alpha"]], axis=-1)
    unused = np.zeros_like(pixels["metallic"])  # glTF: red is free, green roughness, blue metallic
    orm = np.concatenate([unused, pixels["roughness"], pixels["metallic"]], axis=-1)
    material = PBRMaterial(
        baseColorTexture=Image.fromarray(base_color),
        baseColorFactor=np.array([255, 255, 255, 255], dtype=np.uint8),
        metallicRoughnessTexture=Image.fromarray(orm),
        metallicFactor=1.0,
        roughnessFactor=1.0,
        alphaMode="OPAQUE",
        doubleSided=True,
    )
    y_up = torch.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], dim=1)
    y_up_normals = torch.stack([normals[:, 0], normals[:, 2], -normals[:, 1]], dim=1)
    uv = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1)
    return trimesh.Trimesh(
        y_up.numpy(),
        faces.numpy(),
        vertex_normals=y_up_normals.numpy(),
        visual=trimesh.visual.TextureVisuals(uv=uv.numpy(), material=material),
        process=False,
    )
