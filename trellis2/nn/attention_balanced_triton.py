"""Attention over packed sequences whose work is divided evenly among the processors, for short lists.

2,900 tokens are 276 tiles of 128 queries and 12 heads: three rounds on 132 processors, the last of which does
a tenth of a round's work. Here each program takes the same number of (tile, block of keys) pairs; tiles that
end up divided are summed by a second kernel (stream-K: Osama et al., 2023; in attention: Sanovar et al.,
2024). Lengths are read on the device, so that one recording serves them all.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from functools import cache

import torch
import triton
import triton.language as tl

from .attention_triton import Tiling, tiling


@triton.jit
def _tile(acc, norm, peak, q, k, v, scale, keys_left, MASKED: tl.constexpr, BLOCK_KEYS: tl.constexpr):
    """One tile of keys; the scale goes into the one product and sum before each exponential."""
    logits = tl.dot(q, k)
    if MASKED:
        logits = tl.where(tl.arange(0, BLOCK_KEYS)[None, :] < keys_left, logits, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(logits, 1) * scale)
    weights = tl.exp2(logits * scale - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
    return acc, norm * shrink + tl.sum(weights, 1), new_peak


@triton.jit
def _counts(query_bounds, key_bounds, sequence, BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr):
    """Tiles of queries and blocks of keys of a sequence."""
    queries = tl.load(query_bounds + sequence + 1) - tl.load(query_bounds + sequence)
    keys = tl.load(key_bounds + sequence + 1) - tl.load(key_bounds + sequence)
    return tl.cdiv(queries, BLOCK_QUERIES), tl.cdiv(keys, BLOCK_KEYS)


@triton.jit
def _total(query_bounds, key_bounds, sequences, heads, BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr):
    """Pairs of a tile and a block in all."""
    total = 0
    for sequence in range(sequences):
        tiles, blocks = _counts(query_bounds, key_bounds, sequence, BLOCK_QUERIES, BLOCK_KEYS)
        total += tiles * blocks * heads
    return total


@triton.jit
def _first_of(program, programs, total):
    """The first pair of a program's share."""
    return (program.to(tl.int64) * total // programs).to(tl.int32)


@triton.jit
def _balanced_kernel(
    q,  # [Tq, heads, DIM], rows `q_stride` apart, heads side by side; so k, v [Tk, heads, DIM] and out
    k,
    v,
    out,
    partial,  # [2 * programs, BLOCK_QUERIES, DIM] float32: sums of divided tiles
    stats,  # [2 * programs, 2, BLOCK_QUERIES] float32: their sums of exponentials and largest logits
    query_bounds,  # [sequences + 1] int32
    key_bounds,
    sequences,
    heads,
    q_stride,
    k_stride,
    v_stride,
    out_stride,
    scale,  # of the logits, times log2(e)
    DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = _total(query_bounds, key_bounds, sequences, heads, BLOCK_QUERIES, BLOCK_KEYS)
    first = _first_of(program, programs, total)
    end = _first_of(program + 1, programs, total)
    base = 0
    for sequence in range(sequences):
        tiles, blocks = _counts(query_bounds, key_bounds, sequence, BLOCK_QUERIES, BLOCK_KEYS)
        first_query, end_query = tl.load(query_bounds + sequence), tl.load(query_bounds + sequence + 1)
        first_key, end_key = tl.load(key_bounds + sequence), tl.load(key_bounds + sequence + 1)
        whole = (end_key - first_key) // BLOCK_KEYS  # blocks without a mask
        pairs = tiles * blocks * heads
        unit, stop = tl.maximum(first, base), tl.minimum(end, base + pairs)
        while unit < stop:
            tile, block = (unit - base) // blocks, (unit - base) % blocks
            last = tl.minimum(blocks, block + stop - unit)
            query = first_query + (tile % tiles) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
            channel = (tile // tiles) * DIM + tl.arange(0, DIM)
            rows = query.to(tl.int64)[:, None]
            here = query[:, None] < end_query
            queries = tl.load(q + rows * q_stride + channel[None, :], mask=here, other=0.0)
            acc = tl.zeros((BLOCK_QUERIES, DIM), tl.float32)
            norm = tl.zeros((BLOCK_QUERIES,), tl.float32)
            peak = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
            place = first_key.to(tl.int64) + tl.arange(0, BLOCK_KEYS)
            k_places = k + place[None, :] * k_stride + channel[:, None]
            v_places = v + place[:, None] * v_stride + channel[None, :]
            for number in range(block, tl.minimum(last, whole)):
                start = number * BLOCK_KEYS
                some_k = tl.load(k_places + start * k_stride)
                some_v = tl.load(v_places + start * v_stride)
                acc, norm, peak = _tile(acc, norm, peak, queries, some_k, some_v, scale, 0, False, BLOCK_KEYS)
            if last > whole:
                start = whole * BLOCK_KEYS
                left = end_key - first_key - whole * BLOCK_KEYS
                exists = tl.arange(0, BLOCK_KEYS) < left
                some_k = tl.load(k_places + start * k_stride, mask=exists[None, :], other=0.0)
                some_v = tl.load(v_places + start * v_stride, mask=exists[:, None], other=0.0)
                acc, norm, peak = _tile(
                    acc, norm, peak, queries, some_k, some_v, scale, left, True, BLOCK_KEYS
                )
            if (block == 0) & (last == blocks):
                result = (acc / norm[:, None]).to(out.dtype.element_ty)
                tl.store(out + rows * out_stride + channel[None, :], result, mask=here)
            else:  # slot 0 for what began in another program's share, else slot 1
                slot = (2 * program + (block == 0).to(tl.int32)).to(tl.int64)
                place_in_tile = tl.arange(0, BLOCK_QUERIES)
                inside = place_in_tile[:, None] * DIM + tl.arange(0, DIM)[None, :]
                tl.store(partial + slot * BLOCK_QUERIES * DIM + inside, acc)
                tl.store(stats + 2 * slot * BLOCK_QUERIES + place_in_tile, norm)
                tl.store(stats + (2 * slot + 1) * BLOCK_QUERIES + place_in_tile, peak)
            unit += last - block
        base += pairs


@triton.jit
def _combine_kernel(
    partial,
    stats,
    out,
    query_bounds,
    key_bounds,
    sequences,
    heads,
    out_stride,
    DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    ROWS: tl.constexpr,  # of the tile that one program sums
):
    """Sums the tile that begins in a program's share and ends in another's."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = _total(query_bounds, key_bounds, sequences, heads, BLOCK_QUERIES, BLOCK_KEYS)
    first = _first_of(program, programs, total)
    end = _first_of(program + 1, programs, total)
    base = 0
    for sequence in range(sequences):
        tiles, blocks = _counts(query_bounds, key_bounds, sequence, BLOCK_QUERIES, BLOCK_KEYS)
        pairs = tiles * blocks * heads
        if (end > first) & (end > base) & (end - 1 < base + pairs):
            tile = (end - 1 - base) // blocks
            begins = base + tile * blocks
            ends = begins + blocks
            if (begins >= first) & (ends > end):
                first_query, end_query = (
                    tl.load(query_bounds + sequence),
                    tl.load(query_bounds + sequence + 1),
                )
                row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
                inside = row[:, None] * DIM + tl.arange(0, DIM)[None, :]
                slot = (2 * program + 1).to(tl.int64)
                acc = tl.load(partial + slot * BLOCK_QUERIES * DIM + inside)
                norm = tl.load(stats + 2 * slot * BLOCK_QUERIES + row)
                peak = tl.load(stats + (2 * slot + 1) * BLOCK_QUERIES + row)
                other, reached = program + 1, end
                while reached < ends:
                    until = _first_of(other + 1, programs, total)
                    if until > reached:
                        slot = (2 * other).to(tl.int64)
                        more = tl.load(partial + slot * BLOCK_QUERIES * DIM + inside)
                        more_norm = tl.load(stats + 2 * slot * BLOCK_QUERIES + row)
                        more_peak = tl.load(stats + (2 * slot + 1) * BLOCK_QUERIES + row)
                        new_peak = tl.maximum(peak, more_peak)
                        shrink, more_shrink = tl.exp2(peak - new_peak), tl.exp2(more_peak - new_peak)
                        acc = acc * shrink[:, None] + more * more_shrink[:, None]
                        norm = norm * shrink + more_norm * more_shrink
                        peak = new_peak
                    reached = until
                    other += 1
                query = first_query + (tile % tiles) * BLOCK_QUERIES + row
                channel = (tile // tiles) * DIM + tl.arange(0, DIM)
                result = (acc / norm[:, None]).to(out.dtype.element_ty)
                place = out + query.to(tl.int64)[:, None] * out_stride + channel[None, :]
                tl.store(place, result, mask=query[:, None] < end_query)
        base += pairs


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def balanced_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    how: Tiling | None = None,
    programs: int | None = None,
) -> torch.Tensor:
    """`q [Tq, H, D]` over `k, v [Tk, H, D]` (heads side by side, rows any distance apart) by sequence.

    `*_bounds [B + 1]` int32 are cumulative lengths on the device. D must be a power of two from 16 on, keys
    at least one a sequence; `programs` share the work, None: one a processor. Returns `[Tq, H, D]`; rows
    after the last bound are left as they were allocated.
    """
    tokens, heads, dim = q.shape
    out = torch.empty((tokens, heads, dim), dtype=q.dtype, device=q.device)
    if not tokens:
        return out
    how = how or tiling(torch.cuda.get_device_capability(q.device), dim)
    programs = programs or _processors(q.device)
    partial = torch.empty(2 * programs, how.queries, dim, dtype=torch.float32, device=q.device)
    stats = torch.empty(2 * programs, 2, how.queries, dtype=torch.float32, device=q.device)
    sequences = len(query_bounds) - 1
    _balanced_kernel[(programs,)](
        q,
        k,
        v,
        out,
        partial,
        stats,
        query_bounds,
        key_bounds,
        sequences,
        heads,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        out.stride(0),
        math.log2(math.e) / math.sqrt(dim),
        DIM=dim,
        BLOCK_QUERIES=how.queries,
        BLOCK_KEYS=how.keys,
        num_warps=how.warps,
        num_stages=how.stages,
    )
    rows = min(32, how.queries)
    _combine_kernel[(programs, how.queries // rows)](
        partial,
        stats,
        out,
        query_bounds,
        key_bounds,
        sequences,
        heads,
        out.stride(0),
        DIM=dim,
        BLOCK_QUERIES=how.queries,
        BLOCK_KEYS=how.keys,
        ROWS=rows,
        num_warps=4,
    )
    return out
