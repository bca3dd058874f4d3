"""Reading attributes that live at voxel centres: sparse trilinear and nearest.

The rule: voxel `i` has its sample at `i + 0.5`; absent neighbours get weight 0 and the rest are renormalised,
so nothing darkens towards empty space. `VoxelGrid` is the lookup from coordinates to rows, built once for all
queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .backends import pick
from .errors import ArgumentError

SMALLEST_LAUNCH = 4096  # points below which loading the compiled kernel is not worth it
QUERIES_PER_CHUNK = 1 << 16  # keeps the eight-corner temporaries of a chunk inside the CPU's cache
MAX_TABLE_ENTRIES = 1 << 24  # 64 MB of int32; larger grids use coarser bricks, then a sorted brick list
_OUTSIDE = 2  # queries are clamped to this many voxels outside the grid, where every cell is absent


class VoxelGrid:
    """A set of occupied voxels that answers "which row is voxel (i, j, k)".

    Two levels: a table over bricks of 4 or 8 voxels a side, then the row of each cell of an occupied brick.

    Args:
        coords: integer voxel coordinates, `[N, 3]`, unique, each inside `shape`.
        shape: voxels along x, y and z.
    Raises:
        ArgumentError: coordinates outside the shape, listed twice, or of the wrong dimensions.
    """

    def __init__(self, coords: Tensor, shape: Sequence[int]) -> None:
        self.shape = _checked_shape(shape)
        self.coords = _checked_coords(coords, self.shape)
        self.device = coords.device
        sizes = [[((g + 2 * _OUTSIDE) >> shift) + 2 for g in self.shape] for shift in (2, 3)]
        self._shift = 2 if _product(sizes[0]) <= MAX_TABLE_ENTRIES else 3
        self._bricks = sizes[self._shift - 2]
        self._pad = 1 << self._shift  # one empty brick before the grid: no query needs a bounds test
        self._build()

    def __len__(self) -> int:
        return int(self.coords.shape[0])

    def _build(self) -> None:
        brick, cell = self._address(self.coords)
        occupied, slot = torch.unique(brick, return_inverse=True)
        cells = 1 << (3 * self._shift)
        # Brick 0 is empty; a stored row is one more than the row, so that 0 means absent.
        self._rows = torch.zeros((len(occupied) + 1) * cells, dtype=torch.int32, device=self.device)
        row = torch.arange(1, len(self) + 1, dtype=torch.int32, device=self.device)
        self._rows[(slot + 1) * cells + cell] = row
        stored = int(torch.count_nonzero(self._rows))
        if stored != len(self):
            raise ArgumentError(
                f"{len(self)} voxels were given but only {stored} are distinct: remove duplicates first"
            )
        self._occupied = occupied
        self._table: Tensor | None = None
        if _product(self._bricks) <= 8 * MAX_TABLE_ENTRIES:
            self._table = torch.zeros(_product(self._bricks), dtype=torch.int32, device=self.device)
            self._table[occupied] = torch.arange(1, len(occupied) + 1, dtype=torch.int32, device=self.device)

    def kernel_tables(self) -> Any:
        """The same tables as a `sampling_kernels.GridTables`, for kernels that look voxels up themselves."""
        from .kernels import as_warp
        from .sampling_kernels import GridTables

        tables: Any = GridTables()
        tables.rows = as_warp(self._rows)
        tables.table = as_warp(self._rows[:1] if self._table is None else self._table)
        tables.occupied = as_warp(self._occupied)
        tables.dense = int(self._table is not None)
        tables.shift = self._shift
        tables.bricks_y, tables.bricks_z = self._bricks[1], self._bricks[2]
        return tables

    def _address(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Brick number (int64) and cell within the brick of integer coordinates `[..., 3]`."""
        c = coords.long() + self._pad
        s, mask = self._shift, self._pad - 1
        brick, cell = c >> s, c & mask
        number = (brick[..., 0] * self._bricks[1] + brick[..., 1]) * self._bricks[2] + brick[..., 2]
        return number, (((cell[..., 0] << s) | cell[..., 1]) << s) | cell[..., 2]

    def _brick_slot(self, number: Tensor) -> Tensor:
        """Storage slot of each brick number; 0 for empty bricks."""
        if self._table is not None:
            return self._table[number] if number.dim() > 1 else self._table.index_select(0, number)
        at = torch.searchsorted(self._occupied, number).clamp_(max=max(len(self._occupied) - 1, 0))
        if len(self._occupied) == 0:
            return torch.zeros_like(number)
        return torch.where(self._occupied[at] == number, at + 1, 0)

    def find(self, coords: Tensor) -> Tensor:
        """Row of each voxel, int64 `[...]`; -1 where the voxel is absent or outside the grid.

        Args:
            coords: integer coordinates, `[..., 3]`, on the grid's device.
        """
        upper = torch.tensor(self.shape, device=coords.device) + (_OUTSIDE - 1)
        clamped = torch.minimum(coords.long().clamp(min=-_OUTSIDE), upper)
        number, cell = self._address(clamped)
        slot = self._brick_slot(number).long()
        return self._rows[(slot << (3 * self._shift)) + cell].long() - 1

    def corner_rows(self, base: Tensor) -> Tensor:
        """Stored rows (row + 1, 0 absent) of the 8 voxels `base + {0,1}^3`, int32 `[Q, 8]`; z varies fastest.

        Args:
            base: lower corners, int64 `[Q, 3]`, already clamped to within two voxels of the grid.
        """
        s, mask = self._shift, self._pad - 1
        strides = (self._bricks[1] * self._bricks[2], self._bricks[2], 1)
        bricks, cells = [], []
        for axis in range(3):
            c = base[:, axis, None] + torch.arange(self._pad, self._pad + 2, device=base.device)  # [Q, 2]
            bricks.append((c >> s) * strides[axis])
            cells.append((c & mask) << (s * (2 - axis)))
        number = _outer_sum(bricks)  # [Q, 8]
        slot = self._brick_slot(number.view(-1)).view(number.shape)
        return self._rows.index_select(0, ((slot.long() << (3 * s)) + _outer_sum(cells)).view(-1)).view(-1, 8)


def sample_trilinear(grid: VoxelGrid, attrs: Tensor, points: Tensor) -> Tensor:
    """Attributes at continuous points, blended over the voxels present among the 8 nearest centres.

    `out = sum(w a) / max(sum w, 1e-12)` over present voxels; 0 where none of the eight is present or the
    point is not finite. Differentiable with respect to `attrs`.

    Args:
        grid: the voxels.
        attrs: one row a voxel, `[N, C]`.
        points: positions in voxel units (voxel `i` spans `i` to `i + 1`), `[Q, 3]`.
    Returns:
        `[Q, C]`, in the dtype of `attrs` when that is floating, else float32.
    Raises:
        ArgumentError: shapes or devices that disagree.
        BackendError: `SAMPLING_BACKEND` forces what cannot be used.
    """
    values, points = _checked_query(grid, attrs, points)
    if not pick("sampling", grid.device).portable:
        out = _trilinear_flex_gemm(grid, values, points)
    elif len(points) < SMALLEST_LAUNCH or (torch.is_grad_enabled() and attrs.requires_grad):
        out = trilinear_torch(grid, values, points)
    else:
        out = _trilinear_kernel(grid, values.detach(), points)
    return out.to(attrs.dtype) if attrs.is_floating_point() else out


def sample_nearest(grid: VoxelGrid, attrs: Tensor, points: Tensor) -> Tensor:
    """Attributes of the voxel that holds each point (`trunc(point)`), 0 where it is absent; `[Q, C]`.

    Arguments as for `sample_trilinear`.
    """
    values, points = _checked_query(grid, attrs, points)
    out = values.new_zeros((points.shape[0], values.shape[1]))
    for start in range(0, points.shape[0], QUERIES_PER_CHUNK):
        chunk = points[start : start + QUERIES_PER_CHUNK]
        row = grid.find(_clamped_integers(chunk.trunc(), grid))
        hit = (row >= 0).nonzero(as_tuple=True)[0]
        out[start + hit] = values[row[hit]]
    return out.to(attrs.dtype) if attrs.is_floating_point() else out


def trilinear_torch(grid: VoxelGrid, values: Tensor, points: Tensor) -> Tensor:
    """`sample_trilinear` in plain torch, for float32 `values [N, C]` and `points [Q, 3]`; has gradients."""
    if not len(grid) or not len(points):
        return values.new_zeros((len(points), values.shape[1]))
    return torch.cat([_trilinear_chunk(grid, values, chunk) for chunk in points.split(QUERIES_PER_CHUNK)])


def _trilinear_kernel(grid: VoxelGrid, values: Tensor, points: Tensor) -> Tensor:
    from .kernels import launch, warp_module

    wp = warp_module()
    from .sampling_kernels import trilinear

    out = torch.empty((len(points), values.shape[1]), device=points.device)
    inputs = [grid.kernel_tables(), wp.vec3i(*grid.shape), points, values, out]
    launch(trilinear, len(points), inputs, points.device)
    return out


def _trilinear_flex_gemm(grid: VoxelGrid, values: Tensor, points: Tensor) -> Tensor:
    from flex_gemm.ops.grid_sample import grid_sample_3d

    coords = torch.nn.functional.pad(grid.coords.int(), (1, 0))  # batch column in front
    shape = torch.Size((1, values.shape[1], *grid.shape))
    return grid_sample_3d(values, coords, shape, points[None], mode="trilinear")[0]


def _trilinear_chunk(grid: VoxelGrid, values: Tensor, points: Tensor) -> Tensor:
    base = (points - 0.5).floor()
    high = points - 0.5 - base  # weight of the upper voxel on each axis
    stored = grid.corner_rows(_clamped_integers(base, grid))  # [Q, 8]
    pair = torch.stack((1 - high, high), dim=2)  # [Q, 3, 2]
    weight = (pair[:, 0, :, None, None] * pair[:, 1, None, :, None] * pair[:, 2, None, None, :]).view(-1, 8)
    weight = torch.where(stored > 0, weight, 0)
    weight = weight / weight.sum(dim=1, keepdim=True).clamp_(min=1e-12)
    # Absent corners read a present one with weight 0, so that a bad row elsewhere cannot leak in.
    some = stored.amax(dim=1, keepdim=True)
    rows = torch.where(stored > 0, stored, some).sub_(1).clamp_(min=0)
    out = torch.nn.functional.embedding_bag(rows, values, per_sample_weights=weight, mode="sum")
    return torch.where(some > 0, out, 0)


def _clamped_integers(points: Tensor, grid: VoxelGrid) -> Tensor:
    """Integer coordinates within two voxels of the grid; what is not finite goes outside."""
    upper = torch.tensor(grid.shape, dtype=points.dtype, device=points.device)
    outside = float(-_OUTSIDE)
    return torch.minimum(points.nan_to_num(outside, outside, outside).clamp(min=outside), upper).long()


def _outer_sum(parts: list[Tensor]) -> Tensor:
    """`[Q, 2]` three times to `[Q, 8]`, the last varying fastest."""
    x, y, z = parts
    return ((x[:, :, None] + y[:, None, :])[:, :, :, None] + z[:, None, None, :]).view(-1, 8)


def _checked_query(grid: VoxelGrid, attrs: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    if attrs.dim() != 2 or attrs.shape[0] != len(grid):
        raise ArgumentError(f"attrs must be [{len(grid)}, C], one row a voxel; got {tuple(attrs.shape)}")
    if points.dim() != 2 or points.shape[1] != 3:
        raise ArgumentError(f"points must be [Q, 3]; got {tuple(points.shape)}")
    if not attrs.device == points.device == grid.device:
        devices = f"grid on {grid.device}, attrs on {attrs.device}, points on {points.device}"
        raise ArgumentError(f"{devices}: move them to one device")
    return attrs.float(), points.detach().float()


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    sizes = tuple(int(g) for g in shape)
    if len(sizes) != 3 or not all(1 <= g <= 1 << 20 for g in sizes):
        raise ArgumentError(f"shape must be three sizes between 1 and {1 << 20}; got {sizes}")
    return sizes[0], sizes[1], sizes[2]


def _checked_coords(coords: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if coords.dim() != 2 or coords.shape[1] != 3 or coords.is_floating_point():
        raise ArgumentError(f"coords must be integers [N, 3]; got {coords.dtype} {tuple(coords.shape)}")
    if len(coords):
        low, high = coords.amin(dim=0).tolist(), coords.amax(dim=0).tolist()
        if min(low) < 0 or any(h >= g for h, g in zip(high, shape, strict=True)):
            raise ArgumentError(f"coords span {low} to {high}, outside the grid of {list(shape)} voxels")
    return coords


def _product(sizes: Sequence[int]) -> int:
    return sizes[0] * sizes[1] * sizes[2]
