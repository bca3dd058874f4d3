"""The grid's place in the world: box, voxel size and grid size from whichever of them a caller gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError

Triple = int | float | Sequence[float] | np.ndarray | Tensor
Box = Sequence[Sequence[float]] | np.ndarray | Tensor

MAX_GRID = 1 << 16  # voxels along one axis; npz files store coordinates in 16 bits


@dataclass(frozen=True)
class GridFrame:
    """Where the voxels are: voxel `c` spans `origin + c * voxel_size` to `origin + (c + 1) * voxel_size`.

    All tensors are on one device: `aabb` float32 `[2, 3]`, `voxel_size` float32 `[3]`.
    """

    aabb: Tensor
    voxel_size: Tensor
    grid_size: tuple[int, int, int]

    @property
    def origin(self) -> Tensor:
        """Lower corner of the box, float32 `[3]`."""
        return self.aabb[0]


def grid_frame(
    voxel_size: Triple | None = None,
    grid_size: Triple | None = None,
    aabb: Box | None = None,
    *,
    vertices: Tensor | None = None,
    device: torch.device | str = "cpu",
    voxel_size_wins: bool = False,
) -> GridFrame:
    """Complete a grid's description from what was given.

    Args:
        voxel_size: side of a voxel, one number or three.
        grid_size: voxels along each axis, one number or three.
        aabb: the box, two corners. Left out: the box of `vertices`, padded evenly to whole voxels.
        vertices: `[V, 3]`, needed only without `aabb`.
        device: where the tensors go.
        voxel_size_wins: given both sizes, recompute the grid size (else both are used as given).
    Raises:
        ArgumentError: neither size given, a box without extent, sizes that are not positive and finite.
    """
    if voxel_size is None and grid_size is None:
        raise ArgumentError("give voxel_size or grid_size")
    size = None if voxel_size is None else _triple(voxel_size, "voxel_size")
    grid = None if grid_size is None else _triple(grid_size, "grid_size").round()
    if aabb is None:
        box = _padded_box(vertices, size, grid)
    else:
        box = torch.as_tensor(aabb, dtype=torch.float32).detach().cpu().reshape(-1)
        if box.numel() != 6:
            raise ArgumentError(f"aabb must be two corners of three numbers; got {box.numel()} numbers")
        box = box.view(2, 3)
    extent = box[1] - box[0]
    if not bool(torch.isfinite(box).all()) or not bool((extent > 0).all()):
        raise ArgumentError(f"aabb must be finite with its second corner above its first; got {box.tolist()}")
    if size is None:
        assert grid is not None
        size = extent / grid
    elif grid is None or voxel_size_wins:
        grid = (extent / size).round()
    counts = [int(g) if math.isfinite(g) else 0 for g in grid.tolist()]
    if not all(1 <= g <= MAX_GRID for g in counts):
        raise ArgumentError(f"grid of {counts} voxels: each axis must have 1 to {MAX_GRID}")
    return GridFrame(box.to(device), size.to(device), (counts[0], counts[1], counts[2]))


def voxel_keys(coords: Tensor, frame: GridFrame) -> Tensor:
    """One int64 a voxel, ascending with (x, y, z); `coords [..., 3]`."""
    _, gy, gz = frame.grid_size
    return (coords[..., 0] * gy + coords[..., 1]) * gz + coords[..., 2]


def voxel_coords(keys: Tensor, frame: GridFrame) -> Tensor:
    """The inverse of `voxel_keys`: int64 `[N, 3]`."""
    _, gy, gz = frame.grid_size
    return torch.stack((keys // (gy * gz), keys // gz % gy, keys % gz), dim=1)


def _triple(value: Triple, name: str) -> Tensor:
    numbers = torch.as_tensor(value, dtype=torch.float32).detach().cpu().reshape(-1)
    if numbers.numel() == 1:
        numbers = numbers.repeat(3)
    if numbers.numel() != 3 or not bool(torch.isfinite(numbers).all()) or not bool((numbers > 0).all()):
        raise ArgumentError(f"{name} must be one or three positive numbers; got {numbers.tolist()}")
    return numbers


def _padded_box(vertices: Tensor | None, size: Tensor | None, grid: Tensor | None) -> Tensor:
    """The vertices' box, widened evenly to whole voxels (with grid_size: half a voxel each side)."""
    if vertices is None or len(vertices) == 0:
        raise ArgumentError("give aabb: there are no vertices to take the box from")
    low, high = vertices.amin(dim=0).float().cpu(), vertices.amax(dim=0).float().cpu()
    extent = high - low
    if size is not None:
        pad = (extent / size).ceil().clamp(min=1) * size - extent
    else:
        assert grid is not None
        pad = extent / (grid - 1).clamp(min=1)
        flat = extent == 0  # no size to divide by: voxels as large as along the longest axis
        pad = torch.where(flat, pad.max() * grid, pad)
    return torch.stack((low - pad / 2, high + pad / 2))
