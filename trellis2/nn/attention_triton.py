"""Attention over packed sequences of any lengths, without a plan, a mask or padding.

Online softmax (Milakov and Gimelshein, 2018) over tiles of keys, as in FlashAttention (Dao et al., 2022).
Lengths are read on the device, so that one recording serves them all.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@triton.jit
def _tile(acc, norm, peak, q, k, v, scale, keys_left, MASKED: tl.constexpr, BLOCK_KEYS: tl.constexpr):
    """One tile of keys: new accumulator [M, D], new sum of exponentials [M] and new largest logit [M]."""
    logits = tl.dot(q, k) * scale
    if MASKED:
        logits = tl.where(tl.arange(0, BLOCK_KEYS)[None, :] < keys_left, logits, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(logits, 1))
    weights = tl.exp2(logits - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
    return acc, norm * shrink + tl.sum(weights, 1), new_peak


@triton.jit
def _attention_kernel(
    q,  # [Tq, heads, DIM], rows `q_stride` apart, heads side by side; so k, v [Tk, heads, DIM] and out
    k,
    v,
    out,
    query_bounds,  # [sequences + 1] int32
    key_bounds,
    q_stride,
    k_stride,
    v_stride,
    out_stride,
    scale,  # of the logits, times log2(e)
    DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    tile, head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first_query, end_query = tl.load(query_bounds + sequence), tl.load(query_bounds + sequence + 1)
    first_key, end_key = tl.load(key_bounds + sequence), tl.load(key_bounds + sequence + 1)
    query = first_query + tile * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    if first_query + tile * BLOCK_QUERIES >= end_query:
        return
    channel = head * DIM + tl.arange(0, DIM)
    rows = query.to(tl.int64)[:, None]
    queries = tl.load(q + rows * q_stride + channel[None, :], mask=query[:, None] < end_query, other=0.0)
    acc = tl.zeros((BLOCK_QUERIES, DIM), tl.float32)
    norm = tl.zeros((BLOCK_QUERIES,), tl.float32)
    peak = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    keys = end_key - first_key
    whole = keys // BLOCK_KEYS * BLOCK_KEYS
    place = first_key.to(tl.int64) + tl.arange(0, BLOCK_KEYS)
    k_places = k + place[None, :] * k_stride + channel[:, None]
    v_places = v + place[:, None] * v_stride + channel[None, :]
    for start in range(0, whole, BLOCK_KEYS):
        some_k = tl.load(k_places + start * k_stride)
        some_v = tl.load(v_places + start * v_stride)
        acc, norm, peak = _tile(acc, norm, peak, queries, some_k, some_v, scale, 0, False, BLOCK_KEYS)
    if whole < keys:
        left = keys - whole
        here = tl.arange(0, BLOCK_KEYS) < left
        some_k = tl.load(k_places + whole * k_stride, mask=here[None, :], other=0.0)
        some_v = tl.load(v_places + whole * v_stride, mask=here[:, None], other=0.0)
        acc, norm, peak = _tile(acc, norm, peak, queries, some_k, some_v, scale, left, True, BLOCK_KEYS)
    result = (acc / norm[:, None]).to(out.dtype.element_ty)
    tl.store(out + rows * out_stride + channel[None, :], result, mask=query[:, None] < end_query)


@dataclass(frozen=True)
class Tiling:
    """Block shape and launch of the kernel."""

    queries: int
    keys: int
    warps: int
    stages: int


def tiling(capability: tuple[int, int], dim: int) -> Tiling:
    """What fits the shared memory: 227 kB on sm_90 and sm_100, 163 on sm_80, 99 on sm_86, 89 and 120."""
    if capability[0] in (9, 10):
        return Tiling(128, 64, 8, 3) if dim > 64 else Tiling(128, 128, 4, 3)
    if capability == (8, 0):
        return Tiling(128, 64, 8, 3) if dim > 64 else Tiling(128, 64, 4, 3)
    return Tiling(64, 64, 4, 2) if dim > 64 else Tiling(128, 64, 4, 2)


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest: int,
    how: Tiling | None = None,
) -> torch.Tensor:
    """`q [Tq, H, D]` over `k, v [Tk, H, D]` (heads side by side, rows any distance apart) by sequence.

    `*_bounds [B + 1]` int32 are cumulative lengths on the device, `longest` is at least the largest number of
    queries. D must be a power of two from 16 on, keys at least one a sequence. Returns `[Tq, H, D]`; rows
    after the last bound are left as they were allocated.
    """
    tokens, heads, dim = q.shape
    out = torch.empty((tokens, heads, dim), dtype=q.dtype, device=q.device)
    if not tokens:
        return out
    how = how or tiling(torch.cuda.get_device_capability(q.device), dim)
    grid = (-(-longest // how.queries), heads, len(query_bounds) - 1)
    _attention_kernel[grid](
        q,
        k,
        v,
        out,
        query_bounds,
        key_bounds,
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
    return out
