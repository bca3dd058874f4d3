"""Which existing voxels a triangle touches, and which a segment runs through."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..sampling import VoxelGrid
from .frame import GridFrame


def triangle_overlaps(
    triangles: Tensor, normals: Tensor, frame: GridFrame, grid: VoxelGrid
) -> tuple[Tensor, Tensor]:
    """Voxel rows and faces, int64 `[K]` each, of all pairs whose closed box and triangle overlap, by face.

    The test is Schwarz and Seidel's (2010, section 4): plane against box, then three edges in three
    projections. Box corners are formed in float32, as stored grids were made, so that "touching" means the
    same here.

    Args:
        triangles: corners relative to the grid's origin, float64 `[F, 3, 3]`.
        normals: unit normals, float64 `[F, 3]`; triangles with a zero normal are passed over.
        frame: the grid's place.
        grid: the existing voxels.
    """
    from ..kernels import launch, warp_module

    wp = warp_module()
    from .overlap_kernels import list_overlaps

    device, count = triangles.device, len(triangles)
    limit = torch.tensor(frame.grid_size, dtype=torch.float32, device=device)
    single = triangles.float()
    low = torch.minimum((single.amin(dim=1) / frame.voxel_size).clamp(min=0).trunc(), limit).int()
    high = torch.minimum((single.amax(dim=1) / frame.voxel_size + 1).clamp(min=0).trunc(), limit).int()
    size = wp.vec3(*frame.voxel_size.tolist())
    scene = [grid.kernel_tables(), size, single, normals.float(), low, high]

    found = torch.zeros(count, dtype=torch.int32, device=device)
    voxel = torch.empty(0, dtype=torch.int32, device=device)  # without room they are counted
    launch(list_overlaps, count, [*scene, found.long(), voxel, found], device)
    end = found.long().cumsum(0)
    voxel = torch.empty(int(end[-1]), dtype=torch.int32, device=device)
    launch(list_overlaps, count, [*scene, end - found, voxel, found], device)
    return voxel.long(), torch.repeat_interleave(torch.arange(count, device=device), found)


def segment_cells(
    start: Tensor, direction: Tensor, length: Tensor, frame: GridFrame
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of segment and cell `[K, 3]` for each step of a walk through the grid (Amanatides and Woo 1987).

    Cells may lie outside the grid.

    Args:
        start: float64 `[E, 3]`, relative to the grid's origin.
        direction: unit, `[E, 3]`.
        length: `[E]`.
        frame: the grid's place.
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
