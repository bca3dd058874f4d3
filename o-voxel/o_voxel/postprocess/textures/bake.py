"""Baking: what the dense surface looks like at every texel of the new mesh's atlas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...mesh.normals import vertex_normals
from ...mesh.repair.orientation import unify_orientations
from ...mesh.spatial.bvh import TriangleBVH
from ...raster import rasterize_uv
from ...raster.fragments import interpolate_at
from ...sampling import sample_trilinear
from ..source import Source
from .gutters import fill, nearest_covered
from .tangents import to_tangent_space

TEXELS_PER_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 21}
"""Bounds the memory of a bake, whatever the texture; a GPU works on some 300,000 texels at once."""

_SUSPICION = 0.1  # voxels behind the texel at which a hit may be the far side of a thin part


@dataclass(frozen=True)
class Layout:
    """The mesh to bake onto: vertices, normals [W, 3], faces [F, 3], uvs [W, 2], tangents [W, 4] or None,
    `openness` [W] of the vertices or None."""

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    normals: Tensor
    tangents: Tensor | None
    openness: Tensor | None = None


@dataclass(frozen=True)
class Textures:
    """uint8 `attributes` [T, T, 6], `normal` [T, T, 3] or None and `occlusion` [T, T] or None; `covered`
    [T, T] bool; `face_id` [T, T] int32, -1 between charts."""

    attributes: Tensor
    normal: Tensor | None
    occlusion: Tensor | None
    covered: Tensor
    face_id: Tensor


def bake(source: Source, reference: TriangleBVH, layout: Layout, size: int, recheck: bool) -> Textures:
    """Sample the voxels at each covered texel, at the nearest point of the reference surface.

    Texels whose surroundings hold no voxel stay uncovered. `recheck` looks again where the nearest point may
    lie on the far side of a thin part. A normal map comes with `layout.tangents`.
    """
    fragments = rasterize_uv(layout.uvs, layout.faces, (size, size), conservative=True)
    face_id = fragments.face_id.reshape(-1)
    barycentric = fragments.barycentric.reshape(-1, 2)
    texels = torch.nonzero(face_id >= 0).squeeze(1)
    device = face_id.device
    attributes = torch.zeros((size * size, 6), dtype=torch.uint8, device=device)
    normal = None if layout.tangents is None else torch.zeros_like(attributes[:, :3])
    occlusion = None if layout.openness is None else torch.zeros_like(attributes[:, 0])
    covered = torch.zeros(size * size, dtype=torch.bool, device=device)
    # A channel of ones tells apart "black" and "no voxel here".
    volume = torch.nn.functional.pad(source.attributes, (0, 1), value=1.0)
    dense_normals = None if normal is None else _dense_normals(reference)
    for chunk in texels.split(TEXELS_PER_CHUNK[device.type]):
        at = (layout.faces, face_id[chunk], barycentric[chunk])
        points = interpolate_at(layout.vertices, *at)
        facing = torch.nn.functional.normalize(interpolate_at(layout.normals, *at), dim=1)
        face, weights = _project(reference, points, facing, source.voxel if recheck else None)
        surface = reference.points_at(face, weights)
        sampled = sample_trilinear(
            source.grid, volume, (surface - source.frame.origin) / source.frame.voxel_size
        )
        attributes[chunk] = quantise(sampled[:, :6])
        covered[chunk] = sampled[:, 6] > 0.5
        if occlusion is not None and layout.openness is not None:
            occlusion[chunk] = quantise(interpolate_at(layout.openness[:, None], *at)[:, 0])
        if normal is not None and layout.tangents is not None and dense_normals is not None:
            corners = reference.faces[face].long()
            dense = (dense_normals[corners] * weights[:, :, None]).sum(dim=1)
            dense = torch.where((dense * facing).sum(dim=1, keepdim=True) < 0, -dense, dense)
            tangents = interpolate_at(layout.tangents, *at)
            local = to_tangent_space(torch.nn.functional.normalize(dense, dim=1), facing, tangents)
            normal[chunk] = (local * 127.5 + 128.0).clamp(0, 255).to(torch.uint8)
    return Textures(
        attributes.reshape(size, size, 6),
        None if normal is None else normal.reshape(size, size, 3),
        None if occlusion is None else occlusion.reshape(size, size),
        covered.reshape(size, size),
        fragments.face_id,
    )


def fill_gutters(textures: Textures) -> Textures:
    """Every texel between the charts takes its nearest covered one's values."""
    nearest = nearest_covered(textures.covered)
    return Textures(
        fill(textures.attributes, nearest),
        None if textures.normal is None else fill(textures.normal, nearest),
        None if textures.occlusion is None else fill(textures.occlusion[..., None], nearest)[..., 0],
        textures.covered,
        textures.face_id,
    )


def quantise(values: Tensor) -> Tensor:
    """uint8 of [0, 1] by truncation, clipped: the reference's rule."""
    return (values * 255.0).clamp(0, 255).to(torch.uint8)


def _dense_normals(reference: TriangleBVH) -> Tensor:
    """Vertex normals of the reference; dual-grid faces carry no side, so they are made consistent first."""
    return vertex_normals(*unify_orientations(reference.vertices, reference.faces))


def _project(
    reference: TriangleBVH, points: Tensor, facing: Tensor, voxel: float | None
) -> tuple[Tensor, Tensor]:
    """Face [P] and weights [P, 3] of the reference point that a texel stands for.

    The nearest one, except on thin parts: when it lies behind the texel, the texel may have sunk past the
    middle of a plate. Then look from further outside; a point found in *front* of the texel is the right
    side. The faces' own windings play no part, as the reference has none to rely on.
    """
    near = reference.closest(points)
    face, weights = near.face, near.barycentric
    if voxel is None:
        return face, weights
    offset = ((reference.points_at(face, weights) - points) * facing).sum(dim=1)
    doubtful = torch.nonzero(offset < -_SUSPICION * voxel).squeeze(1)
    if not len(doubtful):
        return face, weights
    start, normal = points[doubtful], facing[doubtful]
    reach = near.distance[doubtful] + voxel
    again = reference.closest(start + normal * reach[:, None])
    offset = ((reference.points_at(again.face, again.barycentric) - start) * normal).sum(dim=1)
    better = (offset > 0) & (offset < reach)
    face[doubtful[better]] = again.face[better]
    weights[doubtful[better]] = again.barycentric[better]
    return face, weights
