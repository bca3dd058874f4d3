"""Analytic objects for the renderer tests."""

from __future__ import annotations

import math

import torch

from trellis2.representations import PBR_ATTR_LAYOUT, MeshWithVoxel


def sphere(rings: int = 96, radius: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices and faces of a latitude-longitude sphere, wound at random."""
    theta = torch.linspace(0.0, math.pi, rings)
    phi = torch.arange(2 * rings) / (2 * rings) * 2.0 * math.pi
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    vertices = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], -1).reshape(-1, 3) * radius
    i, j, m = torch.arange(rings - 1)[:, None], torch.arange(2 * rings)[None], 2 * rings
    a, b, c, d = i * m + j, (i + 1) * m + j, (i + 1) * m + (j + 1) % m, i * m + (j + 1) % m
    faces = torch.cat([torch.stack(x, -1).reshape(-1, 3) for x in ((a, b, c), (a, c, d))])
    flip = torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) < 0.5
    faces[flip] = faces[flip].flip(1)
    return vertices, faces.int()


def with_voxels(
    vertices: torch.Tensor, faces: torch.Tensor, attrs: list[float], resolution: int = 32
) -> MeshWithVoxel:
    """A mesh in a full grid of voxels that all have the same six attributes."""
    axis = torch.arange(resolution, dtype=torch.int32)
    coords = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return MeshWithVoxel(
        vertices,
        faces,
        [-0.5] * 3,
        1.0 / resolution,
        coords,
        torch.tensor(attrs)[None].repeat(len(coords), 1),
        (1, 6, resolution, resolution, resolution),
        PBR_ATTR_LAYOUT,
    )
