"""The order in which the Triton convolution visits voxels: rows that miss the same neighbours side by side.

A tile of rows costs one matrix product for each of the 27 taps that any of its rows has. On a surface a voxel
has about 13 neighbours; tiles of rows in their own order miss hardly any tap (about 24 of 27 are left), tiles
sorted by neighbour pattern miss half of them (about 15).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .neighbors import KERNEL_VOLUME, neighbor_table_of
from .tensor import SparseTensor

TILE = 128  # rows a tile; the kernels' block height


@dataclass(frozen=True)
class ConvPlan:
    """Rows in visiting order, cut into tiles, with each tile's neighbours and the taps it needs.

    `rows` voxels in all; a row number of `rows` means "no such voxel". int32 throughout.
    """

    rows: int
    order: torch.Tensor  # [tiles * TILE]: the row at each place, `rows` behind the last one
    neighbors: torch.Tensor  # [tiles, 27, TILE]: rows of the neighbours
    taps: torch.Tensor  # [tiles, 27]: the taps that some row of the tile has, ascending; then the others
    counts: torch.Tensor  # [tiles]: how many of them exist

    @property
    def tiles(self) -> int:
        return self.counts.shape[0]


def neighbor_patterns(table: torch.Tensor) -> torch.Tensor:
    """Each row's existing neighbours as the rank of a 27-bit Gray code, `[T]` int32.

    Neighbours in this order differ in few bits, which is what makes their tiles alike.
    """
    bits = 1 << torch.arange(KERNEL_VOLUME, dtype=torch.int32, device=table.device)
    pattern = torch.where(table < table.shape[0], bits, 0).sum(dim=1, dtype=torch.int32)
    for shift in (1, 2, 4, 8, 16):
        pattern ^= pattern >> shift
    return pattern


def conv_plan(table: torch.Tensor) -> ConvPlan:
    """The plan of a neighbour table `[T, 27]`."""
    rows = table.shape[0]
    tiles = -(-rows // TILE)
    order = torch.full((tiles * TILE,), rows, dtype=torch.int32, device=table.device)
    order[:rows] = neighbor_patterns(table).argsort(stable=True)
    absent = table.new_full((1, KERNEL_VOLUME), rows)
    sorted_table = torch.cat([table, absent])[order].view(tiles, TILE, KERNEL_VOLUME)
    neighbors = sorted_table.transpose(1, 2).contiguous()
    exists = (neighbors < rows).any(dim=2)
    taps = (~exists).to(torch.int8).argsort(dim=1, stable=True).int()
    return ConvPlan(rows, order, neighbors, taps, exists.sum(dim=1, dtype=torch.int32))


def conv_plan_of(x: SparseTensor) -> ConvPlan:
    """The plan of a tensor's voxels, made on first use and shared by all that carry its cache."""
    return x.cached("conv_plan", lambda: conv_plan(neighbor_table_of(x)))
