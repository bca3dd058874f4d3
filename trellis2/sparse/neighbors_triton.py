"""The neighbours of children from their parents' in one pass; twin of `neighbors.children_table`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 32


# Counts of voxels differ in every run; specialised, each that 16 divides would be compiled apart.
@triton.jit(do_not_specialize=["count"])
def _children_kernel(
    table,  # [parents, 27]
    slots,  # [count] int64
    rows,  # [8 * (parents + 1)]: the row of each child, `count` where there is none
    out,  # [count, 27]
    count,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tap = tl.arange(0, 32)[None, :]
    here = (row < count)[:, None] & (tap < 27)
    slot = tl.load(slots + row, mask=row < count, other=0)[:, None]
    child = (slot % 8).to(tl.int32)
    # Where the neighbour is from the parent's low corner, in children: -1 to 2 on each axis.
    x, y, z = (child & 1) + tap // 9 - 1, (child >> 1 & 1) + tap // 3 % 3 - 1, (child >> 2) + tap % 3 - 1
    column = 9 * ((x >> 1) + 1) + 3 * ((y >> 1) + 1) + (z >> 1) + 1
    parent = tl.load(table + slot // 8 * 27 + column, mask=here, other=0).to(tl.int64)
    found = tl.load(rows + 8 * parent + (x & 1) + 2 * (y & 1) + 4 * (z & 1), mask=here, other=0)
    tl.store(out + row[:, None] * 27 + tap, found, mask=here)


def children_table(table: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`[T, 27]` int32 from the parents' table, the children's slots `[T]` and the row of each slot."""
    count = slots.shape[0]
    out = table.new_empty(count, table.shape[1])
    if count:
        _children_kernel[(triton.cdiv(count, BLOCK),)](
            table, slots, rows, out, count, BLOCK=BLOCK, num_warps=4
        )
    return out
