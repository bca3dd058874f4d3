"""The surface that an export will have, at full detail and without textures: what previews show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..convert.frame import Box, Triple
from ..mesh.repair.holes import fill_holes
from ..mesh.repair.orientation import unify_orientations
from ..sampling import sample_trilinear
from .geometry import HOLE_PERIMETER, is_frayed, rebuilt
from .source import check_source

MOST_ROUNDS = 64
"""Edges from a known colour that unknown ones are filled over."""


def repaired(
    vertices: Any,
    faces: Any,
    attr_volume: Tensor,
    coords: Tensor,
    attr_layout: Mapping[str, slice],
    aabb: Box,
    voxel_size: Triple,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertices [V, 3], faces [F, 3] as `to_glb` repairs them under `remesh="auto"`, and attributes [L + M, C]
    and coords [L + M, 3] with voxels added where a closed gap has none, coloured as their neighbours.

    Arguments and errors as of `to_glb`.
    """
    source = check_source(vertices, faces, attr_volume, coords, attr_layout, aabb, voxel_size, None)
    mesh = fill_holes(source.vertices, source.faces, HOLE_PERIMETER)
    if not is_frayed(mesh):
        return *unify_orientations(*mesh, outward=True), attr_volume, coords
    made = rebuilt(source)
    points, corners = made.vertices, made.faces
    places = (points - source.frame.origin) / source.frame.voxel_size
    values = _spread(sample_trilinear(source.grid, attr_volume.float(), places), corners)
    limit = torch.tensor(source.grid.shape, device=places.device) - 1
    cells = torch.minimum(places.floor().long().clamp(min=0), limit)
    cells, first = _first_of_each(cells)
    new = source.grid.find(cells) < 0
    added = values[first][new].to(attr_volume.dtype)
    return points, corners, torch.cat([attr_volume, added]), torch.cat([coords, cells[new].to(coords.dtype)])


def _spread(values: Tensor, faces: Tensor) -> Tensor:
    """Rows [V, C] that are all zero become the mean of their neighbours' along the faces, ring by ring."""
    start, end = faces.reshape(-1).long(), faces.roll(-1, dims=1).reshape(-1).long()
    known = (values != 0).any(dim=1)
    for _ in range(MOST_ROUNDS):
        if bool(known.all()):
            break
        total = torch.zeros_like(values).index_add_(0, end, values[start] * known[start, None])
        count = torch.zeros_like(values[:, 0]).index_add_(0, end, known[start].to(values.dtype))
        fresh = ~known & (count > 0)
        values = torch.where(fresh[:, None], total / count.clamp(min=1)[:, None], values)
        known = known | fresh
    return values


def _first_of_each(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows, and the lowest place of each."""
    found, group = torch.unique(cells, dim=0, return_inverse=True)
    first = torch.full((len(found),), len(cells), dtype=torch.int64, device=cells.device)
    first.scatter_reduce_(0, group, torch.arange(len(cells), device=cells.device), "amin")
    return found, first
