"""For printers: hollow bodies filled although their walls have holes, and a flat base to stand on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..normals import face_areas, vertex_normals
from ..spatial.bvh import TriangleBVH
from ..validation import check_mesh
from .isosurface import isosurface

LATTICE = 192
"""Cells along the longest side on which empty space is looked at."""

OPENING = 0.16
"""Of the longest side: how wide the holes are through which a hollow body still counts as closed."""

SHORT = 0.75
"""Cells that a filling stays away from the walls, as these are known to a cell only."""

SAMPLES = 3.0
"""Points of a face for each cell of its area."""


def chamber_filling(
    vertices: Tensor, faces: Tensor, opening: float = OPENING, lattice: int = LATTICE
) -> tuple[Tensor, Tensor]:
    """Closed surfaces [W, 3], [G, 3] that fill the hollows of vertices [V, 3], faces [F, 3]; maybe none.

    A hollow is space that a ball as wide as `opening` (share of the longest side) fits into, but cannot reach
    from outside. The ball's way through it is the filling, so it ends where a wall has a hole. Raises
    MeshError.
    """
    from scipy import ndimage

    vertices, faces = check_mesh(vertices, faces)
    used = vertices[faces.reshape(-1).long()]
    low, high = used.amin(dim=0), used.amax(dim=0)
    radius = opening / 2 * lattice
    margin = 4
    step = float((high - low).max()) / (lattice - 2 * margin)
    origin = (low + high) / 2 - step * lattice / 2
    wall = np.zeros((lattice,) * 3, dtype=bool)
    wall[tuple(((_points(vertices, faces, step) - origin) / step).long().cpu().numpy().T)] = True
    # Space beyond the lattice is empty: a ball rolls around the body there.
    wide = int(np.ceil(radius)) + 2
    roomy = ndimage.distance_transform_edt(np.pad(~wall, wide, constant_values=True)) > radius
    rooms, count = ndimage.label(roomy)
    hollow = (rooms > 0) & (rooms != rooms[0, 0, 0])
    if count < 2 or not hollow.any():
        return vertices[:0], faces[:0]
    inside = (slice(wide, -wide),) * 3
    field = (ndimage.distance_transform_edt(~hollow)[inside] - (radius - SHORT)).astype(np.float32)
    surface = isosurface(_trilinear(torch.from_numpy(field)), lattice)
    return (surface.vertices * step + origin.cpu()).to(vertices), surface.faces.to(faces)


def _points(vertices: Tensor, faces: Tensor, step: float) -> Tensor:
    """Corners, and points spread over each face, several a cell."""
    counts = (face_areas(vertices, faces) / step**2 * SAMPLES).ceil().long().clamp(min=1)
    face = torch.repeat_interleave(torch.arange(len(faces), device=faces.device), counts)
    place = torch.arange(len(face), device=faces.device) + 1.0
    # A sequence that leaves no large gaps (Roberts' R2), folded into the triangle.
    u, v = (place.double() * 0.7548776662466927) % 1, (place.double() * 0.5698402909980532) % 1
    fold = u + v > 1
    u, v = torch.where(fold, 1 - u, u)[:, None].float(), torch.where(fold, 1 - v, v)[:, None].float()
    a, b, c = vertices[faces[face].long()].unbind(dim=1)
    return torch.cat([vertices[faces.reshape(-1).long()], a + u * (b - a) + v * (c - a)])


def _trilinear(values: Tensor):  # type: ignore[no-untyped-def]
    """The field of `isosurface` that interpolates values [R, R, R] at cell centres."""
    size = values.shape[0]

    def field(points: Tensor, limit: float) -> Tensor:
        # 0.8: interpolation may rise faster than the distances that it joins
        at = (points.flip(1) * (2 / size) - 1)[None, None, None]
        sampled = torch.nn.functional.grid_sample(
            values[None, None], at, align_corners=False, padding_mode="border"
        )
        return sampled.reshape(-1) * 0.8

    return field


def wall_thickness(vertices: Tensor, faces: Tensor, tree: TriangleBVH | None = None) -> Tensor:
    """How far it is from each vertex [V] of a closed outward surface straight through to the other side; inf
    where a ray meets none. Raises MeshError."""
    vertices, faces = check_mesh(vertices, faces)
    normals = vertex_normals(vertices, faces)
    extent = float((vertices.amax(dim=0) - vertices.amin(dim=0)).max())
    inwards = vertices - normals * (1e-4 * extent)
    hits = (tree or TriangleBVH(vertices, faces)).cast(inwards, -normals)
    return torch.where(hits.face >= 0, hits.distance + 1e-4 * extent, torch.inf)


def thin_middle(vertices: Tensor, faces: Tensor, wall: float) -> tuple[Tensor, Tensor]:
    """The surfaces [W, 3], [G, 3] in the middle of what is thinner than `wall`; maybe none.

    A vertex's point is half of its thickness below it; faces stay whose three corners are thin. Raises
    MeshError.
    """
    thickness = wall_thickness(vertices, faces)
    thin = thickness < wall
    deep = torch.where(thin, thickness, 0.0)
    middle = vertices - vertex_normals(vertices, faces) * (deep / 2)[:, None]
    return middle, faces[thin[faces.long()].all(dim=1)]


def with_flat_base(vertices: Tensor, share: float) -> Tensor:
    """Vertices [V, 3] with the lowest `share` of the longest side pressed flat (z up).

    All that lies lower moves up to one plane: a round underside becomes a disc, and nothing opens.
    """
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    flat = vertices.clone()
    flat[:, 2].clamp_(min=float(low[2] + share * (high - low).max()))
    return flat
