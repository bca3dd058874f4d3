"""The object that geometry benchmarks share: a bumpy sphere in a torus, eight small spheres around."""

from __future__ import annotations

import math
from typing import Any

import torch

BUMPS = 14.0
"""Waves around the sphere."""


def distance_to_object(points: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Distance-like value of points [Q, 3] in the unit cube centred at 0, negative inside; 1-Lipschitz."""
    points = points / scale
    x, y, z = points.unbind(dim=1)
    radius = points.norm(dim=1)
    wave = torch.sin(BUMPS * x / 0.28) * torch.sin(BUMPS * y / 0.28) * torch.sin(BUMPS * z / 0.28)
    # The bumps have slope up to about 0.005 * 14 / 0.28 = 0.25 an axis: dividing keeps the field 1-Lipschitz.
    sphere = (radius - 0.28 - 0.005 * wave) / 1.25
    torus = torch.hypot(torch.hypot(x, y) - 0.4, z) - 0.049
    small = torch.full_like(x, math.inf)
    for k in range(8):
        angle = math.pi / 4 * k
        centre = points.new_tensor([0.34 * math.cos(angle), 0.34 * math.sin(angle), 0.3 if k % 2 else -0.3])
        small = torch.minimum(small, (points - centre).norm(dim=1) - 0.045)
    return torch.minimum(torch.minimum(sphere, torus), small) * scale


def attributes_at(points: torch.Tensor) -> torch.Tensor:
    """Base colour, metallic, roughness and alpha [Q, 6] in [0, 1], smooth over the object."""
    colour = 0.5 + 0.45 * torch.sin(points * 12.0 + points.new_tensor([0.0, 1.0, 2.0]))
    metallic = (points[:, :1] > 0).float()
    roughness = 0.5 + 0.4 * torch.cos(points[:, 2:] * 9.0)
    return torch.cat([colour, metallic, roughness, torch.ones_like(metallic)], dim=1)


def benchmark_object(
    resolution: int = 512, device: torch.device | str = "cpu", scale: float = 1.0
) -> dict[str, Any]:
    """A mesh such as the shape decoder makes, one vertex a surface voxel, and an attribute row for each.

    At 512 and full `scale`: 0.75 M vertices and 1.5 M faces. Returns `vertices` [V, 3] float32 in [-0.5,
    0.5]^3, `faces` [F, 3] int32, `coords` [V, 3] int32, `attrs` [V, 6] float32 (base colour, metallic,
    roughness, alpha), `resolution`.
    """
    from o_voxel.mesh.rebuild.isosurface import isosurface

    def field(points: torch.Tensor, limit: float) -> torch.Tensor:
        return distance_to_object(points / resolution - 0.5, scale) * resolution

    surface = isosurface(field, resolution, device=device)
    vertices = surface.vertices / resolution - 0.5
    # A fixed jitter of a few hundredths of a voxel, as decoded vertices have.
    noise = torch.rand(vertices.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    vertices = vertices + noise.to(vertices) * (0.06 / resolution)
    return {
        "vertices": vertices,
        "faces": surface.faces,
        "coords": surface.cells,
        "attrs": attributes_at((surface.cells.float() + 0.5) / resolution - 0.5),
        "resolution": resolution,
    }


def as_decoded(made: dict[str, Any]) -> dict[str, Any]:
    """A `benchmark_object` in the order and with the faces of a shape decoder: voxels as children of the
    latent's, quads by voxel and axis that wind one way on either side, cut along either diagonal.

    The state codec stores such faces as flags, and an export has to find out which way they look.
    """
    from o_voxel.convert import flexible_dual_grid_to_mesh

    cells = made["resolution"]
    coords, corners = made["coords"], made["faces"].long().reshape(-1, 6)[:, :3]
    steps = coords[corners[:, 1:]] - coords[corners[:, :1]]  # [Q, 2, 3], to the next corner and across
    across = torch.where(steps[:, :1].sum(2, keepdim=True) == 2, steps[:, :1], steps[:, 1:])[:, 0]
    flags = torch.zeros(coords.shape, dtype=torch.bool, device=coords.device)
    flags[corners[:, 0], (across == 0).int().argmax(dim=1)] = True
    order = torch.argsort(decoder_keys(coords))
    coords, flags = coords[order], flags[order]
    local = (made["vertices"][order] + 0.5) * cells - coords
    weights = torch.rand(len(coords), generator=torch.Generator().manual_seed(0)).to(local) + 0.5
    box = [[-0.5] * 3, [0.5] * 3]
    vertices, faces = flexible_dual_grid_to_mesh(coords, local, flags, weights, box, grid_size=cells)
    return made | {"vertices": vertices, "faces": faces, "coords": coords, "attrs": made["attrs"][order]}


def decoder_keys(coords: torch.Tensor, levels: int = 4) -> torch.Tensor:
    """Numbers [N] in whose order a decoder of `levels` doublings makes voxels [N, 3]: the latent's in rows,
    the children of each with x fastest."""
    coarse, inside = coords.long() >> levels, coords.long() & ((1 << levels) - 1)
    keys = (coarse[:, 0] << 20 | coarse[:, 1] << 10 | coarse[:, 2]) << 3 * levels
    for level in range(levels):
        for axis in range(3):
            keys |= (inside[:, axis] >> level & 1) << 3 * level + axis
    return keys


def frayed(made: dict[str, Any], missing: float, seed: int = 0) -> dict[str, Any]:
    """The object with a share of its faces missing at random, as rough weights leave a surface."""
    drawn = torch.rand(len(made["faces"]), generator=torch.Generator().manual_seed(seed))
    return made | {"faces": made["faces"][(drawn >= missing).to(made["faces"].device)]}


def asset_of(made: dict[str, Any]) -> Any:
    """The `MeshWithVoxel` of a `benchmark_object`, on its device."""
    from trellis2.representations import PBR_ATTR_LAYOUT, MeshWithVoxel

    cells = made["resolution"]
    return MeshWithVoxel(
        made["vertices"],
        made["faces"],
        [-0.5] * 3,
        1.0 / cells,
        made["coords"],
        made["attrs"],
        torch.Size((1, 6, cells, cells, cells)),
        PBR_ATTR_LAYOUT,
    )
