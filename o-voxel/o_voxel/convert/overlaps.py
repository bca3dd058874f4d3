"""Which existing voxels a triangle touches, and which a segment runs through."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..sampling import VoxelGrid
from .frame import GridFrame

CANDIDATES_PER_CHUNK = 1 << 20
_MARGIN = (
    1e-2  # voxels; candidates are gathered with this slack, then tested; covers float32 lattice rounding
)


def triangle_overlaps(
    triangles: Tensor, normals: Tensor, frame: GridFrame, grid: VoxelGrid
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of voxel row and face, in chunks, where the voxel's closed box and the triangle overlap.

    The test is Schwarz and Seidel's (2010, section 4): plane against box, then three edges in three projections. Box
    corners are formed in float32, as stored grids were made, so that "touching" means the same here.

    Args:
        triangles: corners relative to the grid's origin, float64 `[F, 3, 3]`.
        normals: unit normals `[F, 3]`; triangles with a zero normal are passed over.
        frame: the grid's place.
        grid: the existing voxels.
    """
    size = frame.voxel_size.double()
    limit = torch.tensor(frame.grid_size, dtype=torch.float32, device=triangles.device)
    single = triangles.float()
    low = torch.minimum((single.amin(dim=1) / frame.voxel_size).clamp(min=0).trunc(), limit).long()
    high = torch.minimum((single.amax(dim=1) / frame.voxel_size + 1).clamp(min=0).trunc(), limit).long()
    area = (normals != 0).any(dim=1)
    extent = torch.where(area[:, None], (high - low).clamp(min=0), 0)
    scaled, scaled_normal = triangles / size, normals * size  # in voxel units

    # Cells are walked column by column along the axis that the plane is steepest to, so that a column holds few.
    axis = scaled_normal.abs().argmax(dim=1)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    face_ids = torch.arange(len(triangles), device=triangles.device)
    columns = extent[face_ids, u] * extent[face_ids, v]
    columns = torch.where(extent[face_ids, axis] > 0, columns, 0)
    ends = columns.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    chunk = CANDIDATES_PER_CHUNK // 4
    for start in range(0, total, chunk):
        number = torch.arange(start, min(start + chunk, total), device=triangles.device)
        face = torch.searchsorted(ends, number, right=True)
        inside = number - (ends[face] - columns[face])
        width = extent[face, v[face]]
        cu, cv = low[face, u[face]] + inside // width, low[face, v[face]] + inside % width
        first, last = _column_range(scaled, scaled_normal, face, axis, u, v, cu, cv)
        first = torch.maximum(first, low[face, axis[face]])
        last = torch.minimum(last, high[face, axis[face]] - 1)
        which, depth = _expand(first, last)
        face = face[which]
        cell = torch.empty((len(face), 3), dtype=torch.long, device=triangles.device)
        rows = torch.arange(len(face), device=triangles.device)
        cell[rows, u[face]], cell[rows, v[face]], cell[rows, axis[face]] = cu[which], cv[which], depth
        voxel = grid.find(cell)
        there = (voxel >= 0).nonzero(as_tuple=True)[0]
        voxel, face, cell = voxel[there], face[there], cell[there]
        touching = _touches(triangles[face], normals[face], cell, frame.voxel_size)
        yield voxel[touching], face[touching]


def segment_cells(
    start: Tensor, direction: Tensor, length: Tensor, frame: GridFrame
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of segment and cell `[K, 3]` for each step of a walk through the grid (Amanatides and Woo 1987).

    Cells may lie outside the grid. Args: `start` and unit `direction` float64 `[E, 3]`, `length` `[E]`, relative to the
    grid's origin.
    """
    size = frame.voxel_size.double()
    upper = torch.tensor(frame.grid_size, dtype=torch.float64, device=start.device)
    # Begin where the segment enters the grid, so that far ends cost no steps.
    moving = direction != 0
    speed = torch.where(moving, direction, 1.0)
    at_low, at_high = -start / speed, (upper * size - start) / speed
    enter = torch.where(moving, torch.minimum(at_low, at_high), -torch.inf).amax(dim=1).clamp(min=0)
    leave = torch.where(moving, torch.maximum(at_low, at_high), torch.inf).amin(dim=1)
    reach = torch.minimum(length, leave)
    alive = (enter <= reach).nonzero(as_tuple=True)[0]
    first = start[alive] + direction[alive] * enter[alive, None]
    cell = (first / size).floor().clamp(min=-1.0).minimum(upper).long()
    step = torch.sign(direction[alive]).long()
    delta = torch.where(moving, size / speed.abs(), torch.inf)[alive]
    boundary = (cell + (step > 0)).double() * size
    crossing = torch.where(moving[alive], (boundary - start[alive]) / speed[alive], torch.inf)
    while len(alive):
        yield alive, cell
        nearest, axis = crossing.min(dim=1)
        going = (nearest <= reach[alive]).nonzero(as_tuple=True)[0]
        alive, cell, crossing = alive[going], cell[going].clone(), crossing[going].clone()
        step, delta, axis = step[going], delta[going], axis[going]
        rows = torch.arange(len(going), device=start.device)
        cell[rows, axis] += step[rows, axis]
        crossing[rows, axis] += delta[rows, axis]


def _column_range(
    scaled: Tensor, normal: Tensor, face: Tensor, axis: Tensor, u: Tensor, v: Tensor, cu: Tensor, cv: Tensor
) -> tuple[Tensor, Tensor]:
    """First and last cell (inclusive) that the triangle's plane meets in each column."""
    n, corner = normal[face], scaled[face, 0]
    w = axis[face, None]
    slope_u = (n.gather(1, u[face, None]) / n.gather(1, w))[:, 0]
    slope_v = (n.gather(1, v[face, None]) / n.gather(1, w))[:, 0]
    at = corner.gather(1, w)[:, 0]
    du, dv = cu - corner.gather(1, u[face, None])[:, 0], cv - corner.gather(1, v[face, None])[:, 0]
    base = at - slope_u * du - slope_v * dv
    least = base + torch.minimum(-slope_u, slope_u * 0) + torch.minimum(-slope_v, slope_v * 0)
    most = base + torch.maximum(-slope_u, slope_u * 0) + torch.maximum(-slope_v, slope_v * 0)
    bound = float(1 << 20)
    return (
        (least - _MARGIN).clamp(-bound, bound).floor().long(),
        (most + _MARGIN).clamp(-bound, bound).floor().long(),
    )


def _expand(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    length = (last - first + 1).clamp(min=0)
    which = torch.repeat_interleave(torch.arange(len(length), device=length.device), length)
    begin = length.cumsum(0) - length
    return which, torch.arange(len(which), device=length.device) - begin[which] + first[which]


def _touches(triangle: Tensor, normal: Tensor, cell: Tensor, size: Tensor) -> Tensor:
    """Whether the boxes of cells `[K, 3]` and triangles `[K, 3, 3]` overlap, bool `[K]`."""
    low, high = (cell.float() * size).double(), ((cell + 1).float() * size).double()
    positive = normal > 0
    front = torch.where(positive, high, low) - triangle[:, 0]
    back = torch.where(positive, low, high) - triangle[:, 0]
    result = ((normal * front).sum(dim=1) >= 0) & ((normal * back).sum(dim=1) <= 0)
    edge = triangle.roll(-1, dims=1) - triangle  # [K, 3, 3]
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        sign = torch.where(normal[:, axis] >= 0, 1.0, -1.0)[:, None]
        ni, nj = -edge[:, :, j] * sign, edge[:, :, i] * sign  # inward normals of the projected edges, [K, 3]
        far_i = torch.where(ni > 0, high[:, i, None], low[:, i, None]) - triangle[:, :, i]
        far_j = torch.where(nj > 0, high[:, j, None], low[:, j, None]) - triangle[:, :, j]
        result &= (ni * far_i + nj * far_j >= 0).all(dim=1)
    return result
