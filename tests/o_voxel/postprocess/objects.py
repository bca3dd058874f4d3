"""Small decoded assets: a mesh sent through the dual grid, with colours at its voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from o_voxel.convert import flexible_dual_grid_to_mesh, mesh_to_flexible_dual_grid
from torch import Tensor

from benchmarks.glb import BOX, LAYOUT


def sphere(radius: float = 0.4, rings: int = 48) -> tuple[Tensor, Tensor]:
    """A closed sphere of quads cut in two, with one vertex at each pole."""
    theta = torch.arange(1, rings) * (torch.pi / rings)
    phi = torch.arange(2 * rings) * (torch.pi / rings)
    x = torch.sin(theta)[:, None] * torch.cos(phi)
    y = torch.sin(theta)[:, None] * torch.sin(phi)
    z = torch.cos(theta)[:, None].expand_as(x)
    body = torch.stack([x, y, z], dim=2).reshape(-1, 3)
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    around = 2 * rings
    faces = []
    for row in range(rings - 2):
        for k in range(around):
            a, b = row * around + k, row * around + (k + 1) % around
            faces += [[a, a + around, b + around], [a, b + around, b]]
    north, south, last = len(body), len(body) + 1, (rings - 2) * around
    for k in range(around):
        faces += [[north, k, (k + 1) % around], [south, last + (k + 1) % around, last + k]]
    return torch.cat([body, poles]) * radius, torch.tensor(faces, dtype=torch.int32)


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """A box of twelve triangles, outward."""
    corners = torch.tensor([[i, j, k] for i in (0.0, 1.0) for j in (0.0, 1.0) for k in (0.0, 1.0)])
    vertices = torch.tensor(low) + corners * (torch.tensor(high) - torch.tensor(low))
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)]
    return vertices, torch.tensor(faces, dtype=torch.int32)


def colours(points: Tensor) -> Tensor:
    """The true base colour [Q, 3] anywhere in the box."""
    return 0.5 + 0.4 * torch.sin(points * 9.0 + torch.tensor([0.0, 1.0, 2.0]))


def attributes(points: Tensor, alpha: float = 1.0) -> Tensor:
    """Base colour, metallic 0.25, roughness 0.75, alpha [Q, 6]."""
    rest = torch.tensor([0.25, 0.75, alpha]).expand(len(points), 3)
    return torch.cat([colours(points), rest], dim=1)


def decoded(
    mesh: tuple[Tensor, Tensor],
    resolution: int = 64,
    values: Callable[[Tensor], Tensor] = attributes,
) -> dict[str, Any]:
    """Arguments of `to_glb` for a mesh in the unit box, as the decoder would hand them over."""
    coords, dual, flags = mesh_to_flexible_dual_grid(*mesh, grid_size=resolution, aabb=BOX)
    local = dual * resolution - coords
    vertices, faces = flexible_dual_grid_to_mesh(coords, local, flags, None, BOX, grid_size=resolution)
    return {
        "vertices": vertices,
        "faces": faces,
        "attr_volume": values((coords.float() + 0.5) / resolution - 0.5),
        "coords": coords,
        "attr_layout": LAYOUT,
        "aabb": BOX,
        "grid_size": resolution,
    }
