"""Mesh to flexible dual grid: which voxels the surface passes, and the best surface point inside each."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from ..sampling import VoxelGrid
from .frame import Box, GridFrame, Triple, grid_frame, voxel_coords, voxel_keys
from .overlaps import segment_cells, triangle_overlaps
from .quadrics import line_quadrics, minimise_in_boxes, plane_quadrics, point_quadrics, triangle_normals
from .scanline import checked_mesh, lattice_hits

SHORTEST_BOUNDARY = 1e-6  # world units; shorter boundary edges have no direction worth keeping
_log = logging.getLogger(__name__)


def mesh_to_flexible_dual_grid(
    vertices: Tensor,
    faces: Tensor,
    voxel_size: Triple | None = None,
    grid_size: Triple | None = None,
    aabb: Box | None = None,
    face_weight: float = 1.0,
    boundary_weight: float = 1.0,
    regularization_weight: float = 0.1,
    timing: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a triangle mesh into voxels with dual vertices and edge flags, on the vertices' device.

    A voxel exists where the surface crosses a lattice edge around it. Its dual vertex minimises, inside the
    voxel, the squared distances to the planes of the triangles there, to open boundaries, and to the mean
    crossing.

    Args:
        vertices: `[V, 3]`, world units.
        faces: `[F, 3]`.
        voxel_size: world size of a voxel, one number or three.
        grid_size: voxels along each axis; when both sizes are given both are used as they are.
        aabb: the grid's box; left out, the vertices' box padded to whole voxels.
        face_weight: above 0, triangles that pass a voxel without crossing its edges count too (a switch: the
            value does not scale).
        boundary_weight: weight of edges with one face; 0 leaves them out.
        regularization_weight: pull towards the mean crossing, relative to the number of crossings.
        timing: log the seconds of each step at level INFO.
    Returns:
        voxel_indices int32 `[N, 3]` in ascending (x, y, z) order; dual_vertices float32 `[N, 3]`, world units
        from the box's lower corner (`dual_vertices / voxel_size - voxel_indices` is in [0, 1]); intersected
        bool `[N, 3]`.
    Raises:
        MeshError: no faces, vertices not finite, indices out of range.
        ArgumentError: sizes or a box that make no grid.
    """
    clock = _Clock(timing)
    vertices, faces = checked_mesh(vertices, faces)
    frame = grid_frame(voxel_size, grid_size, aabb, vertices=vertices, device=vertices.device)
    coords, quadrics, intersected = voxel_quadrics(
        vertices, faces, frame, face_weight, boundary_weight, regularization_weight
    )
    clock.lap("quadrics")
    size = frame.voxel_size.double()
    dual = minimise_in_boxes(quadrics, (coords + 0.5) * size, size)
    clock.lap("solve")
    return coords.int(), dual.float(), intersected


def voxel_quadrics(
    vertices: Tensor,
    faces: Tensor,
    frame: GridFrame,
    face_weight: float,
    boundary_weight: float,
    regularization_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels of a checked mesh and the energy that each dual vertex minimises.

    Returns:
        coordinates int64 `[N, 3]` ascending; quadrics float64 `[N, 10]` about the grid's origin; flags bool
        `[N, 3]`.
    """
    points = (
        vertices - frame.origin
    ).double()  # shifted in float32 so that lattice ties fall as in stored grids
    triangles = points[faces]  # [F, 3, 3]
    planes = plane_quadrics(triangles)
    coords, quadrics, mean, count, intersected = _crossings(triangles, planes, frame)
    grid = VoxelGrid(coords, frame.grid_size)
    if face_weight > 0:
        voxel, face = triangle_overlaps(triangles, triangle_normals(triangles), frame, grid)
        _accumulate(quadrics, voxel, face, planes)
    if boundary_weight > 0:
        _add_boundaries(quadrics, points, faces, boundary_weight, frame, grid)
    if regularization_weight > 0:
        quadrics += point_quadrics(mean) * (regularization_weight * count)[:, None]
    return coords, quadrics, intersected


def _crossings(
    triangles: Tensor, planes: Tensor, frame: GridFrame
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Voxels `[N, 3]`, plane quadrics `[N, 10]`, mean crossing `[N, 3]`, crossings `[N]`, flags `[N, 3]`."""
    hits = list(lattice_hits(triangles, frame))
    key = torch.cat([voxel_keys(h.around(), frame).view(-1) for h in hits])
    key, order = key.sort()
    keys, count = key.unique_consecutive(return_counts=True)
    start = count.cumsum(0) - count
    hit = order // 4  # four voxels a crossing
    face = torch.cat([h.face for h in hits])
    point = torch.cat([h.point for h in hits])
    quadrics = _sum_rows(planes, face[hit], start)
    mean = _sum_rows(point, hit, start) / count[:, None]
    flags = torch.zeros((len(keys), 3), dtype=torch.bool, device=keys.device)
    for h in hits:
        flags[torch.searchsorted(keys, voxel_keys(h.voxel, frame)), h.axis] = True
    return voxel_coords(keys, frame), quadrics, mean, count, flags


def _add_boundaries(
    quadrics: Tensor, points: Tensor, faces: Tensor, weight: float, frame: GridFrame, grid: VoxelGrid
) -> None:
    """Add the line quadric of every edge with one face to the voxels that it runs through."""
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    low, high = edges.amin(dim=1), edges.amax(dim=1)
    key, uses = (low * len(points) + high).unique(return_counts=True)
    key = key[uses == 1]
    start, end = points[key // len(points)], points[key % len(points)]
    length = (end - start).norm(dim=1)
    keep = length > SHORTEST_BOUNDARY
    start, end, length = start[keep], end[keep], length[keep]
    direction = (end - start) / length[:, None]
    lines = line_quadrics(start, direction) * weight
    for segment, cell in segment_cells(start, direction, length, frame):
        row = grid.find(cell)
        there = row >= 0
        _accumulate(quadrics, row[there], segment[there], lines)


def _accumulate(quadrics: Tensor, voxel: Tensor, source: Tensor, table: Tensor) -> None:
    """Add `table[source]` to `quadrics[voxel]`; voxels may repeat."""
    if not len(voxel):
        return
    voxel, order = voxel.sort()
    rows, count = voxel.unique_consecutive(return_counts=True)
    quadrics[rows] += _sum_rows(table, source[order], count.cumsum(0) - count)


def _sum_rows(table: Tensor, index: Tensor, start: Tensor) -> Tensor:
    """Sums of `table[index]` over the runs that begin at `start`, `[len(start), C]`."""
    if not len(start):
        return table.new_zeros((0, table.shape[1]))
    return torch.nn.functional.embedding_bag(index, table, start, mode="sum")


class _Clock:
    """Logs the seconds between laps, when asked."""

    def __init__(self, on: bool) -> None:
        self.on, self.last = on, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        if self.on:
            _log.info("%s: %.3f s", name, now - self.last)
        self.last = now
