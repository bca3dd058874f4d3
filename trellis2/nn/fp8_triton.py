"""Rows to 8-bit floats in one pass over memory; twin of the formulas in `fp8.py`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from .precision import FP8, LARGEST, SMALLEST_SCALE


# Counts of tokens differ in every run; specialised, each that 16 divides would be compiled apart.
@triton.jit(do_not_specialize=["rows"])
def _quantize_kernel(
    x,  # [rows, channels]
    values,  # [rows, channels] 8-bit floats
    scales,  # [rows] float32
    rows,
    channels,
    largest,
    smallest_scale,
    GELU: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row[:, None] * channels + channel[None, :]
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    if GELU:
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        small = tl.exp(-2.0 * tl.abs(inner))
        value *= tl.where(inner >= 0, 1.0, small) / (1.0 + small)  # 0.5 (1 + tanh(u)) = sigmoid(2u)
    scale = tl.maximum(tl.max(tl.abs(value), axis=1) / largest, smallest_scale)
    quotient = value * (1.0 / scale)[:, None]
    quotient = tl.minimum(tl.maximum(quotient, -largest), largest)
    tl.store(values + place, quotient.to(values.dtype.element_ty), mask=here)
    tl.store(scales + row, scale, mask=row < rows)


def quantize_rows(x: torch.Tensor, gelu: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """As `fp8.quantize_rows`."""
    x = x.contiguous()
    rows, channels = x.shape
    values = torch.empty(rows, channels, dtype=FP8, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    if not rows:
        return values, scales
    block_channels = triton.next_power_of_2(channels)
    block_rows = max(1, 2048 // block_channels)
    _quantize_kernel[(triton.cdiv(rows, block_rows),)](
        x,
        values,
        scales,
        rows,
        channels,
        LARGEST,
        SMALLEST_SCALE,
        GELU=gelu,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        num_warps=min(16, max(4, block_channels // 512)),
    )
    return values, scales


@triton.jit
def _quantize_heads_kernel(
    x,  # [tokens, heads, DIM], rows `stride` apart
    values,  # [tokens, heads, DIM] 8-bit floats
    scales,  # [heads, tokens] float32
    tokens,
    heads,
    stride,
    largest,
    smallest_scale,
    DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    head = tl.program_id(1)
    channel = head * DIM + tl.arange(0, DIM)
    here = (token < tokens)[:, None]
    value = tl.load(x + token.to(tl.int64)[:, None] * stride + channel[None, :], mask=here, other=0.0)
    value = value.to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=1) / largest, smallest_scale)
    value = tl.minimum(tl.maximum(value * (1.0 / scale)[:, None], -largest), largest)
    place = token.to(tl.int64)[:, None] * heads * DIM + channel[None, :]
    tl.store(values + place, value.to(values.dtype.element_ty), mask=here)
    tl.store(scales + head * tokens + token, scale, mask=token < tokens)


@triton.jit
def _turn_values_kernel(
    v,  # [tokens, channels], rows `stride` apart
    scales,  # [channels] float32
    out,  # [channels, padded] 8-bit floats, zeros behind the tokens
    tokens,
    stride,
    padded,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    value = tl.load(
        v + token.to(tl.int64)[:, None] * stride + channel[None, :], mask=(token < tokens)[:, None], other=0.0
    )
    value = value.to(tl.float32) / tl.load(scales + channel)[None, :]
    place = channel.to(tl.int64)[:, None] * padded + token[None, :]
    tl.store(out + place, tl.trans(value).to(out.dtype.element_ty), mask=(token < padded)[None, :])


@triton.jit
def _tile_8(
    acc, norm, peak, q, k, v, scale, k_scale, keys_left, MASKED: tl.constexpr, BLOCK_KEYS: tl.constexpr
):
    """One tile of keys; weights are 256 times as large, which keeps small ones in the range of 8 bits."""
    logits = tl.dot(q, k) * (scale[:, None] * k_scale[None, :])
    if MASKED:
        logits = tl.where(tl.arange(0, BLOCK_KEYS)[None, :] < keys_left, logits, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(logits, 1))
    weights = tl.exp2(logits - new_peak[:, None] + 8.0)
    shrink = tl.exp2(peak - new_peak)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None])
    return acc, norm * shrink + tl.sum(weights, 1), new_peak


@triton.jit
def _attention_8_kernel(
    q,  # [Tq, heads, DIM] 8-bit floats; so k [Tk, heads, DIM]
    k,
    v,  # [heads, DIM, padded] 8-bit floats
    out,  # [Tq, heads, DIM]
    q_scales,  # [heads, Tq]
    k_scales,  # [heads, Tk]
    v_scales,  # [heads, DIM]
    queries,
    keys,
    heads,
    padded,
    scale,  # of the logits, times log2(e)
    DIM: tl.constexpr,
    BLOCK_QUERIES: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    head = tl.program_id(1)
    query = tl.program_id(0) * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    channel = head * DIM + tl.arange(0, DIM)
    rows = query.to(tl.int64)[:, None] * heads * DIM + channel[None, :]
    here = query[:, None] < queries
    some_q = tl.load(q + rows, mask=here, other=0.0)
    q_scale = tl.load(q_scales + head * queries + query, mask=query < queries, other=0.0) * scale
    acc = tl.zeros((BLOCK_QUERIES, DIM), tl.float32)
    norm = tl.zeros((BLOCK_QUERIES,), tl.float32)
    peak = tl.full((BLOCK_QUERIES,), float("-inf"), tl.float32)
    key = tl.arange(0, BLOCK_KEYS)
    k_places = k + key[None, :] * heads * DIM + channel[:, None]
    v_places = v + channel.to(tl.int64)[None, :] * padded + key[:, None]
    k_scales += head * keys + key
    whole = keys // BLOCK_KEYS * BLOCK_KEYS
    for start in range(0, whole, BLOCK_KEYS):
        some_k = tl.load(k_places + start * heads * DIM)
        some_v = tl.load(v_places + start)
        k_scale = tl.load(k_scales + start)
        acc, norm, peak = _tile_8(
            acc, norm, peak, some_q, some_k, some_v, q_scale, k_scale, 0, False, BLOCK_KEYS
        )
    if whole < keys:
        left = keys - whole
        some_k = tl.load(k_places + whole * heads * DIM, mask=(key < left)[None, :], other=0.0)
        some_v = tl.load(v_places + whole)  # padded with zeros
        k_scale = tl.load(k_scales + whole, mask=key < left, other=0.0)
        acc, norm, peak = _tile_8(
            acc, norm, peak, some_q, some_k, some_v, q_scale, k_scale, left, True, BLOCK_KEYS
        )
    result = acc / norm[:, None] * tl.load(v_scales + channel)[None, :]
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=here)


def quantize_heads(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`x [T, H, D]` as 8-bit floats, and scales `[H, T]` that undo it."""
    tokens, heads, dim = x.shape
    values = torch.empty(tokens, heads, dim, dtype=FP8, device=x.device)
    scales = torch.empty(heads, tokens, dtype=torch.float32, device=x.device)
    _quantize_heads_kernel[(triton.cdiv(tokens, 32), heads)](
        x, values, scales, tokens, heads, x.stride(0), LARGEST, SMALLEST_SCALE, DIM=dim, BLOCK_TOKENS=32
    )
    return values, scales


def turn_values(v: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values `[T, H, D]` as 8-bit floats `[H, D, padded]`, zeros behind them up to a multiple of `block`, and
    scales `[H, D]`.
    """
    tokens, heads, dim = v.shape
    padded = triton.cdiv(tokens, block) * block
    out = torch.empty(heads, dim, padded, dtype=FP8, device=v.device)
    scales = (v.abs().amax(0).float() / LARGEST).clamp_min(SMALLEST_SCALE)
    grid = (padded // 64 if padded % 64 == 0 else triton.cdiv(padded, 64), heads * dim // 64)
    _turn_values_kernel[grid](v, scales, out, tokens, v.stride(0), padded, BLOCK_TOKENS=64, BLOCK_CHANNELS=64)
    return out, scales


def attention_8(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    blocks: tuple[int, int] = (128, 128),
    warps: int = 8,
    stages: int = 3,
) -> torch.Tensor:
    """Attention of one sequence, `q [Tq, H, D]` over `k, v [Tk, H, D]`, by products of 8-bit floats."""
    queries, heads, dim = q.shape
    out = torch.empty(queries, heads, dim, dtype=q.dtype, device=q.device)
    (q8, q_scales), (k8, k_scales), (v8, v_scales) = (
        quantize_heads(q),
        quantize_heads(k),
        turn_values(v, blocks[1]),
    )
    _attention_8_kernel[(triton.cdiv(queries, blocks[0]), heads)](
        q8,
        k8,
        v8,
        out,
        q_scales,
        k_scales,
        v_scales,
        queries,
        len(k),
        heads,
        v8.shape[2],
        math.log2(math.e) / math.sqrt(dim),
        DIM=dim,
        BLOCK_QUERIES=blocks[0],
        BLOCK_KEYS=blocks[1],
        num_warps=warps,
        num_stages=stages,
    )
    return out
