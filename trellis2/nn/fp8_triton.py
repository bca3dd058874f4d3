"""Rows to 8-bit floats in one pass over memory; twin of the formulas in `fp8.py`."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

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
    # A NaN stays one: as a large number it would get past the check of the result.
    quotient = tl.clamp(quotient, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
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
