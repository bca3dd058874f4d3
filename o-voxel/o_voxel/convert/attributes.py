"""Textured mesh to attribute voxels: triangles are sampled at the voxels they pass, then averaged."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from torch import Tensor

from .frame import Box, GridFrame, Triple, grid_frame, voxel_coords, voxel_keys
from .materials import Material, Surface, load_surfaces
from .quadrics import triangle_normals
from .scanline import checked_mesh, lattice_hits
from .textures import Texture

# Channels of a sample, in this order.
CHANNELS = {"base_color": 3, "metallic": 1, "roughness": 1, "emissive": 3, "alpha": 1, "normal": 3}
SMALLEST_UV_AREA = 1e-6
SAMPLES_PER_CHUNK = 1 << 18
_log = logging.getLogger(__name__)


def textured_mesh_to_volumetric_attr(
    mesh: Any,
    voxel_size: Triple | None = None,
    grid_size: Triple | None = None,
    aabb: Box | None = None,
    mip_level_offset: float = 0.0,
    verbose: bool = False,
    timing: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Voxels of a textured mesh with the material's values in each.

    The voxels are those of `mesh_to_flexible_dual_grid` for the same triangles and grid, in the same order.

    Args:
        mesh: a path, a `trimesh.Scene` (its transforms are applied) or a `trimesh.Trimesh`. Vertex colours
            and plain materials are converted; textures that are not square powers of two are resized.
        voxel_size: world size of a voxel.
        grid_size: voxels along each axis; when both sizes are given both are used as they are.
        aabb: the grid's box; left out, the vertices' box padded to whole voxels.
        mip_level_offset: added to the mip level that matches a voxel to texels.
        verbose: log each mesh.
        timing: log the seconds taken.
        device: where to compute.
    Returns:
        coordinates int32 `[N, 3]` in ascending (x, y, z) order, and uint8 `[N, C]` each of base_color (3, as
        stored: no colour-space conversion), metallic, roughness, emissive (3), alpha and normal (3, as
        `n * 0.5 + 0.5`).
    Raises:
        MeshError: no faces, vertices not finite, indices out of range.
        ArgumentError: sizes or a box that make no grid.
    """
    start = time.perf_counter()
    surfaces = load_surfaces(mesh, device)
    every = torch.cat([surface.vertices for surface in surfaces])
    frame = grid_frame(voxel_size, grid_size, aabb, vertices=every, device=device)
    keys, sums = [], []
    for surface in surfaces:
        key, total = _sample_surface(surface, frame, mip_level_offset)
        keys.append(key)
        sums.append(total)
        if verbose:
            _log.info("%d faces cross %d voxels", len(surface.faces), len(key))
    unique, row = torch.cat(keys).unique(return_inverse=True)
    total = sums[0].new_zeros((len(unique), 1 + sum(CHANNELS.values())))
    total.index_add_(0, row, torch.cat(sums))
    mean = total[:, 1:] / total[:, :1]
    mean[:, -3:] = mean[:, -3:] * 0.5 + 0.5
    # Truncated, as stored attributes are; the margin keeps a byte that averaging left just below itself.
    quantised = (mean * 255 + 1e-6).clamp(0, 255).to(torch.uint8)
    names, widths = list(CHANNELS), list(CHANNELS.values())
    if timing:
        _log.info("attributes of %d voxels: %.3f s", len(unique), time.perf_counter() - start)
    attrs = {n: part.contiguous() for n, part in zip(names, quantised.split(widths, dim=1), strict=True)}
    return voxel_coords(unique, frame).int(), attrs


def _sample_surface(surface: Surface, frame: GridFrame, offset: float) -> tuple[Tensor, Tensor]:
    """Voxel keys, ascending, and a row a voxel: sum of weights, sums of weighted samples."""
    vertices, faces = checked_mesh(surface.vertices, surface.faces)
    triangles = (vertices - frame.origin).double()[faces]
    around = [
        (voxel_keys(h.around(), frame), h.face[:, None].expand(-1, 4)) for h in lattice_hits(triangles, frame)
    ]
    crossed = torch.cat([key.reshape(-1) for key, _ in around])
    face = torch.cat([f.reshape(-1) for _, f in around])
    keys, row = crossed.unique(return_inverse=True)
    pair = (row * len(faces) + face).unique()  # a triangle counts once a voxel
    row, face = pair // len(faces), pair % len(faces)
    normals = triangle_normals(triangles)
    total = triangles.new_zeros((len(keys), 1 + sum(CHANNELS.values())))
    for start in range(0, len(row), SAMPLES_PER_CHUNK):
        part = slice(start, start + SAMPLES_PER_CHUNK)
        f = face[part]
        centre = (voxel_coords(keys[row[part]], frame) + 0.5) * frame.voxel_size.double()
        corners, normal = triangles[f], normals[f]
        distance = ((centre - corners[:, 0]) * normal).sum(dim=1, keepdim=True)
        weights = _barycentrics(corners, centre - distance * normal)
        sample = _shade(surface, faces[f], corners, weights, frame, offset)
        # One minus the signed distance in world units: close to one, kept for equality with stored files.
        share = (1 - distance).clamp(min=1e-6)
        total.index_add_(0, row[part], torch.cat((share, share * sample), dim=1))
    return keys, total


def _shade(
    surface: Surface, faces: Tensor, corners: Tensor, weights: Tensor, frame: GridFrame, offset: float
) -> Tensor:
    """Material values at points of faces, `[K, channels]`, in the order of `CHANNELS`."""
    material = surface.material
    blend = weights[:, :, None]
    normal = (surface.normals[faces] * blend).sum(dim=1)
    uv = torch.zeros_like(weights[:, :2])
    tangents = None
    if surface.uv is not None:
        corner_uv = surface.uv[faces]  # [K, 3, 2]
        uv = (corner_uv * blend).sum(dim=1)
        tangents = _tangents(corners, corner_uv)

    def look(texture: Texture | None, channels: int) -> Tensor:
        if texture is None or tangents is None:
            return torch.ones((len(faces), channels), dtype=torch.float64, device=weights.device)
        level = _mip_level(tangents, frame, texture.side) + offset
        return texture.lookup(uv, level)[:, :channels]

    base = look(material.base_color, 4) * torch.tensor(
        material.base_color_factor, dtype=torch.float64, device=weights.device
    )
    if surface.colors is not None:
        base = base * (surface.colors[faces] * blend).sum(dim=1)
    rough = look(material.metallic_roughness, 3)
    glow = look(material.emissive, 3) * torch.tensor(
        material.emissive_factor, dtype=torch.float64, device=weights.device
    )
    if material.normal is not None and tangents is not None:
        n = look(material.normal, 3) * 2 - 1
        normal = n[:, :1] * tangents[2] + n[:, 1:2] * tangents[3] + n[:, 2:] * normal
        normal = torch.nn.functional.normalize(normal, dim=1)
    metallic, roughness = rough[:, 2:] * material.metallic_factor, rough[:, 1:2] * material.roughness_factor
    alpha = _alpha(base[:, 3:], material)
    return torch.cat((base[:, :3], metallic, roughness, glow, alpha, normal), dim=1)


def _alpha(alpha: Tensor, material: Material) -> Tensor:
    if material.alpha_mode == "MASK":
        return (alpha >= material.alpha_cutoff).double()
    return alpha if material.alpha_mode == "BLEND" else torch.ones_like(alpha)


def _barycentrics(corners: Tensor, points: Tensor) -> Tensor:
    """Weights `[K, 3]` of points in the planes of triangles; outside a triangle some are negative."""
    e1, e2, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    d11, d12, d22 = (e1 * e1).sum(1), (e1 * e2).sum(1), (e2 * e2).sum(1)
    p1, p2 = (p * e1).sum(1), (p * e2).sum(1)
    area = d11 * d22 - d12 * d12
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    weights = torch.stack((1 - v - w, v, w), dim=1)
    return torch.where(
        torch.isfinite(weights).all(dim=1, keepdim=True), weights, 1 / 3
    )  # slivers: the middle


def _tangents(corners: Tensor, uv: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lengths of dP/du and dP/dv `[K]`, and their unit vectors `[K, 3]`."""
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    det = (a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1])[:, None]
    flat = det.abs() < SMALLEST_UV_AREA
    scale = torch.where(flat, 1.0, det)
    du = (e1 * b[:, 1:] - e2 * a[:, 1:]) / scale
    dv = (e2 * a[:, :1] - e1 * b[:, :1]) / scale
    lengths = [torch.where(flat, 1e6, d.norm(dim=1, keepdim=True))[:, 0] for d in (du, dv)]
    axes = torch.eye(3, dtype=du.dtype, device=du.device)
    units = [
        torch.where(flat, axis, torch.nn.functional.normalize(d, dim=1))
        for d, axis in ((du, axes[0]), (dv, axes[1]))
    ]
    return lengths[0], lengths[1], units[0], units[1]


def _mip_level(tangents: tuple[Tensor, Tensor, Tensor, Tensor], frame: GridFrame, side: int) -> Tensor:
    """Level at which a texel is about a voxel, `[K]`."""
    along = frame.voxel_size.double().max() / (tangents[0] * tangents[1]).sqrt()
    return torch.log2(along * side)
