"""A ball to unwrap, and what a good atlas is measured by."""

from __future__ import annotations

import torch
from o_voxel.mesh.charts.flatten import covered_cells
from o_voxel.mesh.charts.unwrap import Unwrapped

from ...postprocess.objects import sphere


def bumpy(rings: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    vertices, faces = sphere(0.4, rings)
    return vertices * (1 + 0.06 * torch.sin(vertices * 25).prod(dim=1, keepdim=True)), faces


def by_axis(mesh: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices [3, V] and faces [3, F], as charts are made from."""
    return mesh[0].T.double().contiguous(), mesh[1].T.long().contiguous()


def triangles(uvs: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Corners [3, 2, F] of faces [F, 3] over uvs [W, 2]."""
    return uvs.double()[faces.long()].permute(1, 2, 0)


def atlas_cells(result: Unwrapped, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(face, column, row) of each texel of a texture that a face covers."""
    return covered_cells(triangles(result.uvs, result.faces) * size)


def twice_covered(result: Unwrapped, size: int = 512) -> float:
    """Share of covered cells that two faces claim."""
    _, column, row = atlas_cells(result, size)
    cells = row * size + column
    return 1 - len(cells.unique()) / len(cells) if len(cells) else 0.0


def stretches(result: Unwrapped) -> torch.Tensor:
    """Singular values [F, 2] of the map from the surface to the atlas, relative to the mean scale."""
    corners = result.vertices.double()[result.faces.long()]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = first.norm(dim=1)
    rest = torch.zeros((len(corners), 2, 2), dtype=torch.float64, device=corners.device)
    rest[:, 0, 0], rest[:, 0, 1] = length, (first * second).sum(dim=1) / length
    rest[:, 1, 1] = torch.linalg.cross(first, second).norm(dim=1) / length
    flat = result.uvs.double()[result.faces.long()]
    now = torch.stack([flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]], dim=2)
    values = torch.linalg.svdvals(now @ torch.linalg.inv(rest))
    return values / values.median()
