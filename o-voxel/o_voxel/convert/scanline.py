"""Where triangles cross the grid's lattice lines: the enumeration that both conversions from meshes share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MeshError
from ..mesh.arrays.groups import expand_counts
from .frame import GridFrame


@dataclass(frozen=True)
class LatticeHits:
    """Crossings of triangles with the lattice lines parallel to one axis.

    `face` int64 `[H]`; `point` float64 `[H, 3]`, relative to the grid's origin; `voxel` int64 `[H, 3]`, the
    voxel that owns the crossed edge. The edge's other voxels are one further along either or both of the
    other axes.
    """

    axis: int
    face: Tensor
    point: Tensor
    voxel: Tensor

    def around(self) -> Tensor:
        """The four voxels around each crossed edge, int64 `[H, 4, 3]`, the owner first."""
        offsets = torch.zeros((4, 3), dtype=torch.long, device=self.voxel.device)
        offsets[1::2, (self.axis + 1) % 3] = 1
        offsets[2:, (self.axis + 2) % 3] = 1
        return self.voxel[:, None] + offsets


def checked_mesh(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices as float32 `[V, 3]` and faces as int64 `[F, 3]` on the vertices' device.

    Raises:
        MeshError: no faces, other shapes, vertices not finite, indices out of range.
    """
    vertices = torch.as_tensor(vertices).detach().float()
    faces = torch.as_tensor(faces).detach().to(vertices.device)
    if vertices.dim() != 2 or vertices.shape[1] != 3:
        raise MeshError(f"vertices must be [V, 3]; got {tuple(vertices.shape)}")
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise MeshError(f"faces must be integers [F, 3]; got {faces.dtype} {tuple(faces.shape)}")
    if len(faces) == 0:
        raise MeshError("the mesh has no faces")
    faces = faces.long()
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= len(vertices):
        raise MeshError(f"faces index vertices {low} to {high}, but there are {len(vertices)}")
    finite = torch.isfinite(vertices).all(dim=1)
    if not bool(finite.all()):
        raise MeshError(f"{int((~finite).sum())} of {len(vertices)} vertices are not finite")
    return vertices, faces


def lattice_hits(triangles: Tensor, frame: GridFrame) -> Iterator[LatticeHits]:
    """Enumerate the crossings axis by axis.

    A line at coordinate L is hit when `low < L <= high`, so that a line through an edge shared by two
    triangles is counted by one of them; the lattice's first and last lines are never tested.

    Args:
        triangles: corners relative to the grid's origin, float64 `[F, 3, 3]`.
        frame: the grid.
    """
    for axis in range(3):
        yield _hits_along(triangles, frame, axis)


def _hits_along(triangles: Tensor, frame: GridFrame, axis: int) -> LatticeHits:
    b, c = (axis + 1) % 3, (axis + 2) % 3
    sizes, grid = frame.voxel_size, frame.grid_size
    height, order = triangles[:, :, c].sort(dim=1, stable=True)  # [F, 3]
    corner = triangles[:, :, [axis, b]].gather(1, order[:, :, None].expand(-1, -1, 2))  # [F, 3, (depth, x)]

    first, middle, last = _cell(height, sizes[c], grid[c]).unbind(dim=1)
    face, row = _ranges(first, last)
    y = _line(row, sizes[c])
    lower = row < middle[face]
    tip = torch.where(lower, 0, 2)  # both row ends start at the lowest or at the highest corner
    other = torch.where(lower, 2, 0)
    ends = [
        _interpolate(height[face, tip], height[face, to], corner[face, tip], corner[face, to], y)
        for to in (torch.ones_like(tip), other)
    ]
    swap = (ends[0][:, 1] > ends[1][:, 1])[:, None]
    left, right = torch.where(swap, ends[1], ends[0]), torch.where(swap, ends[0], ends[1])

    span, column = _ranges(_cell(left[:, 1], sizes[b], grid[b]), _cell(right[:, 1], sizes[b], grid[b]))
    x = _line(column, sizes[b])
    depth = _interpolate(left[span, 1], right[span, 1], left[span, :1], right[span, :1], x)[:, 0]
    k = _truncate(depth, sizes[axis], grid[axis])
    keep = ((k >= 0) & (k < grid[axis])).nonzero(as_tuple=True)[0]

    point = triangles.new_empty((len(keep), 3))
    voxel = torch.empty((len(keep), 3), dtype=torch.long, device=triangles.device)
    point[:, axis], voxel[:, axis] = depth[keep], k[keep]
    point[:, b], voxel[:, b] = x[keep], column[keep]
    point[:, c], voxel[:, c] = y[span[keep]], row[span[keep]]
    return LatticeHits(axis, face[span[keep]], point, voxel)


def _truncate(coordinate: Tensor, size: Tensor, count: int) -> Tensor:
    """Voxel index by truncation; far values stay outside [0, count) without overflowing."""
    return (coordinate / size.double()).clamp(-2.0, count + 1.0).trunc().long()


def _cell(coordinate: Tensor, size: Tensor, count: int) -> Tensor:
    """Voxel index clamped to the grid."""
    return _truncate(coordinate, size, count).clamp(0, count - 1)


def _line(index: Tensor, size: Tensor) -> Tensor:
    """Coordinate of the lattice line above a voxel index; formed in float32, as stored grids were made."""
    return ((index + 1).float() * size).double()


def _ranges(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Every integer of every range `[start, stop)`: which range, and the integer."""
    which, step = expand_counts((stop - start).clamp(min=0))
    return which, start[which] + step


def _interpolate(from_t: Tensor, to_t: Tensor, start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Values `[H, D]` at `t` between `(from_t, start)` and `(to_t, end)`; `start` where those coincide."""
    run = to_t - from_t
    flat = run == 0
    fraction = torch.where(flat, 0.0, (t - from_t) / torch.where(flat, 1.0, run))
    # Weighted ends, not start plus difference: depth on a lattice plane then rounds as in stored grids.
    return torch.where(flat[:, None], start, start * (1 - fraction[:, None]) + end * fraction[:, None])
