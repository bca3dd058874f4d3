"""Remeshing by an offset surface: closed, evenly sampled, whatever the state of the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import ArgumentError
from .. import cumesh_backend
from ..spatial.bvh import TriangleBVH
from ..validation import check_mesh
from .isosurface import Field, base_resolution, isosurface

CUMESH_LEAST_FACES = 8
"""cumesh's search tree needs more triangles than this."""

MARGIN = 2.0
"""Cells that `outer_shell` leaves free between the offset surface and the border of its grid."""


def remesh_narrow_band(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    center: torch.Tensor | Sequence[float],
    scale: float,
    resolution: int,
    band: float = 1.0,
    project_back: float = 0.0,
    bvh: TriangleBVH | None = None,
    *,
    only_outer: bool = False,
    around: tuple[TriangleBVH, float] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mesh the surface at distance eps = band * scale / resolution from the input.

    The grid is a cube of side `scale` around `center` with `resolution` cells an axis; the offset surface
    must lie inside it to come out closed. It wraps both sides of the input: a double shell. `only_outer`
    keeps the layer that the outside can reach, so inner walls and voids go; openings narrower than about 2
    eps count as closed. `project_back` in 0..1 moves vertices that share of the way to the nearest input
    point; 0 leaves the model inflated by eps. `around` another mesh its own distance (in mesh units) is kept,
    too: the two offset bodies become one. A `bvh` over the same mesh saves building one. The result is
    oriented outwards; it may be empty when the grid misses the surface.

    Raises:
        MeshError: invalid arrays.
        ArgumentError: band, scale, project_back or resolution out of range.
    """
    vertices, faces = check_mesh(vertices, faces)
    if not band > 0:
        raise ArgumentError(f"band must be above 0 cells, got {band}")
    if not scale > 0:
        raise ArgumentError(f"scale must be above 0, got {scale}")
    if not 0 <= project_back <= 1:
        raise ArgumentError(f"project_back must be from 0 to 1, got {project_back}")
    middle = torch.as_tensor(center, dtype=torch.float32).to(vertices.device)
    if middle.shape != (3,):
        raise ArgumentError(f"center must have 3 coordinates, got shape {list(middle.shape)}")
    base_resolution(resolution)  # refuse a bad one before the tree is built
    if (
        not only_outer
        and around is None
        and len(faces) > CUMESH_LEAST_FACES
        and cumesh_backend.selected(vertices.device)
    ):
        return cumesh_backend.remesh_narrow_band(
            vertices, faces, middle, scale, resolution, band, project_back
        )
    tree = bvh or TriangleBVH(vertices, faces)
    field = offset_field(tree, middle, scale / resolution, resolution, band)
    if around is not None:
        other = offset_field(
            around[0], middle, scale / resolution, resolution, around[1] * resolution / scale
        )
        first = field

        def field(points: torch.Tensor, limit: float) -> torch.Tensor:
            return torch.minimum(first(points, limit), other(points, limit))

    surface = isosurface(field, resolution, only_outer=only_outer, device=tree.device)
    points = (surface.vertices / resolution - 0.5) * scale + middle
    if project_back > 0 and len(points):
        reach = 2.0 * (band + 1.0) * scale / resolution
        near = tree.closest(points, reach)
        found = near.face >= 0
        target = torch.where(found[:, None], tree.points_at(near.face.clamp(min=0), near.barycentric), points)
        points = torch.lerp(points, target, project_back)
    return points, surface.faces


def offset_field(tree: TriangleBVH, middle: torch.Tensor, cell: float, resolution: int, band: float) -> Field:
    """Distance to the mesh less `band`, both in cells of size `cell`, over the grid around `middle`."""

    def field(points: torch.Tensor, limit: float) -> torch.Tensor:
        world = (points - resolution / 2) * cell + middle
        reach = limit + band
        distance = tree.closest(world, reach * cell * 1.001).distance / cell
        return distance.clamp(max=reach + 1.0) - band

    return field


def outer_shell(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    resolution: int = 256,
    band: float = 1.0,
    project_back: float = 0.0,
    bvh: TriangleBVH | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One closed skin around the model, as a 3D printer wants it: nothing inside, no holes, outward normals.

    `remesh_narrow_band` with `only_outer`, in a grid fitted to the mesh: a cell is about the mesh's largest
    extent over `resolution`. Raises as that does.
    """
    vertices, faces = check_mesh(vertices, faces)
    used = vertices[faces.reshape(-1).long()]
    low, high = used.amin(dim=0), used.amax(dim=0)
    room = resolution - 2 * (band + MARGIN)
    if room < 1:
        raise ArgumentError(f"resolution {resolution} leaves no cells inside a band of {band}; raise it")
    extent = max(float((high - low).max()), 1e-6)
    return remesh_narrow_band(
        vertices,
        faces,
        (low + high) / 2,
        extent * resolution / room,
        resolution,
        band,
        project_back,
        bvh,
        only_outer=True,
    )
