"""The 27 neighbours of every voxel, found once for a set of coordinates."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch

from ..backends import sparse_conv_backend
from ..errors import InvalidArgumentError
from .tensor import SparseTensor

KERNEL_VOLUME = 27
CENTER = 13
CHILDREN = 8
TABLE_ROWS = 1 << 18  # of a table of children, looked up at once


def voxel_keys(coords: torch.Tensor, margin: int = 0) -> tuple[torch.Tensor, tuple[int, int]]:
    """One int64 key a voxel, ascending with (batch, x, y, z), and the strides of x and y (that of z is 1).

    `margin` empty cells behind each axis keep a step beyond the grid from landing on a voxel of the next row.
    """
    low = coords.amin(0)
    batches, *spans = (coords.amax(0) - low).tolist()
    size_x, size_y, size_z = (span + 1 + margin for span in spans)
    if (batches + 1) * size_x * size_y * size_z >= 2**62:
        raise InvalidArgumentError(
            f"coordinates span {spans} voxels in {batches + 1} items, 2^62 cells or more; crop the grid"
        )
    b, x, y, z = (coords - low).long().unbind(1)
    return ((b * size_x + x) * size_y + y) * size_z + z, (size_y * size_z, size_z)


def neighbor_table(coords: torch.Tensor) -> torch.Tensor:
    """Row numbers of the 27 neighbours, `[T, 27]` int32; T stands for "no such voxel".

    Column `9i + 3j + k` is the voxel at `p + (i-1, j-1, k-1)` of the same batch item: column 13 is the voxel
    itself, columns v and 26-v are opposite. `coords [T, 4]` int32: unique rows, any order, any device.

    Raises InvalidArgumentError for duplicate voxels.
    """
    count = coords.shape[0]
    if count == 0:
        return torch.empty(0, KERNEL_VOLUME, dtype=torch.int32, device=coords.device)
    keys, (stride_x, stride_y) = voxel_keys(coords, margin=1)
    keys, order = keys.sort()
    if bool((keys.diff() == 0).any()):
        raise InvalidArgumentError("coords hold the same voxel more than once; make the rows unique first")
    rows = order.int()
    columns = torch.full((KERNEL_VOLUME, count), count, dtype=torch.int32, device=coords.device)
    columns[CENTER] = rows
    sentinel = keys.new_full((1,), torch.iinfo(torch.int64).max)
    padded = torch.cat([keys, sentinel])

    def link(column: int, position: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Enter the voxels found at `position` as neighbours, and their finders as the opposite ones."""
        hit = padded[position] == wanted
        finder = hit.nonzero().squeeze(1)
        found = position[finder]
        columns[column][finder] = rows[found]
        columns[2 * CENTER - column][found] = rows[finder]
        return hit

    # Half of the offsets decide the other half, and in sorted order a run of three along z needs one search.
    link(CENTER + 1, torch.arange(1, count + 1, device=coords.device), keys + 1)
    for column, stride in [(CENTER + 3, stride_y)] + [
        (CENTER + 9 + 3 * j, stride_x + j * stride_y) for j in (-1, 0, 1)
    ]:
        wanted = keys + stride
        position = torch.searchsorted(keys, wanted)
        hit = link(column, position, wanted)
        link(column - 1, (position - 1).clamp_min_(0), wanted - 1)
        link(column + 1, position + hit, wanted + 1)

    table = torch.empty(count, KERNEL_VOLUME, dtype=torch.int32, device=coords.device)
    table[order] = columns.t()
    return table


def children_table(table: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """The neighbour table `[T, 27]` of the children at `slots [T]` (8 * parent's row + child index) of voxels
    with the neighbour table `[N, 27]`: looked up, where `neighbor_table` sorts and searches.
    """
    parents, count = table.shape[0], slots.shape[0]
    rows = table.new_full((CHILDREN * (parents + 1),), count)  # a missing parent has no children
    rows[slots] = torch.arange(count, dtype=torch.int32, device=slots.device)
    if table.is_cuda and sparse_conv_backend(table.device, torch.float16).backend == "triton":
        kernels = importlib.import_module("trellis2.sparse.neighbors_triton")
        made: torch.Tensor = kernels.children_table(table, slots, rows)
        return made
    columns, places = _links(table.device)
    out = table.new_empty(count, KERNEL_VOLUME)
    for piece in range(0, count, TABLE_ROWS):
        own = slots[piece : piece + TABLE_ROWS]
        child = own % CHILDREN
        near = table[own // CHILDREN].gather(1, columns[child])
        out[piece : piece + TABLE_ROWS] = rows[CHILDREN * near.long() + places[child]]
    return out


def _links(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For each child and neighbour, `[8, 27]` each: the parent's neighbour that it is in, and where there."""
    child = torch.arange(CHILDREN, device=device)[:, None]
    tap = torch.arange(KERNEL_VOLUME, device=device)[None]
    # From the parent's low corner, in children: -1 to 2 on each axis.
    x, y, z = (child & 1) + tap // 9 - 1, (child >> 1 & 1) + tap // 3 % 3 - 1, (child >> 2) + tap % 3 - 1
    columns = 9 * ((x >> 1) + 1) + 3 * ((y >> 1) + 1) + (z >> 1) + 1
    return columns, (x & 1) + 2 * (y & 1) + 4 * (z & 1)


@dataclass(frozen=True)
class Origin:
    """Of which coarser voxels those of a tensor are children, until its neighbour table is made of theirs."""

    parents: SparseTensor  # without features
    slots: torch.Tensor  # [T] int64

    @classmethod
    def remember(cls, fine: SparseTensor, coarse: SparseTensor, slots: torch.Tensor) -> None:
        """Leave it with the finer tensor's cache, unless that has a table."""
        memo = fine.scale_cache.memo
        if ("neighbors", fine.device) not in memo:
            nothing, own = coarse.coords.new_empty(len(coarse.coords), 0), {coarse.scale: coarse.scale_cache}
            parents = SparseTensor(nothing, coarse.coords, coarse.batch_size, scale=coarse.scale, cache=own)
            memo["origin", fine.device] = cls(parents, slots)


def neighbor_table_of(x: SparseTensor) -> torch.Tensor:
    """The neighbour table of a tensor's voxels, built on first use and shared by all that carry its cache."""

    def build() -> torch.Tensor:
        origin: Origin | None = x.scale_cache.memo.pop(("origin", x.device), None)
        if origin is None:
            return neighbor_table(x.coords)
        return children_table(neighbor_table_of(origin.parents), origin.slots)

    return x.cached("neighbors", build)
