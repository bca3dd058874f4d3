"""The element-wise work of the transformer and VAE blocks, one pass over memory each.

Twins of the torch formulas in `elementwise.py`, with the same roundings: what those round to the tensor's
dtype between operations is rounded here too, but never leaves the registers.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .precision import FP8, LARGEST, SMALLEST_SCALE, QuantizedRows


# Counts of tokens differ in every run; specialised, each that 16 divides would be compiled apart.
@triton.jit(do_not_specialize=["rows", "length"])
def _residual_norm_kernel(
    x,  # [rows, channels]
    branch,  # [rows, channels] or [items, channels]
    gate,  # [items, channels], its rows `vector_stride` apart, as those of shift and scale
    shift,
    scale,
    weight,  # [channels] float32
    bias,
    item_of_row,  # [rows] int64
    total,  # [rows, channels]: x + gate * branch
    out,  # [rows, channels]: the norm of total
    scales,
    largest,
    smallest_scale,
    rows,
    length,
    channels,
    vector_stride,
    eps,
    BRANCH: tl.constexpr,
    BRANCH_PER_ITEM: tl.constexpr,
    GATE: tl.constexpr,
    NORM: tl.constexpr,
    MODULATE: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
    RAGGED: tl.constexpr,
    QUANTIZE: tl.constexpr,  # `out` are 8-bit floats, `scales` [rows] float32 undo it
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    dtype = total.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row[:, None] * channels + channel[None, :]
    if RAGGED:
        item = tl.load(item_of_row + row, mask=row < rows, other=0)
    else:
        item = row // length
    vector = item[:, None] * vector_stride + channel[None, :]
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    if BRANCH:
        if BRANCH_PER_ITEM:
            added = tl.load(branch + item[:, None] * channels + channel[None, :], mask=here, other=0.0)
        else:
            added = tl.load(branch + place, mask=here, other=0.0)
        added = added.to(tl.float32)
        if GATE:
            opened = tl.load(gate + vector, mask=here, other=0.0).to(tl.float32)
            added = (opened * added).to(dtype).to(tl.float32)
        value = (value + added).to(dtype)
        tl.store(total + place, value, mask=here)
        value = value.to(tl.float32)
    if NORM:
        mean = tl.sum(value, axis=1) / channels
        centred = tl.where(here, value - mean[:, None], 0.0)
        variance = tl.sum(centred * centred, axis=1) / channels
        normed = centred * (1.0 / tl.sqrt(variance + eps))[:, None]
        if WEIGHT:
            normed *= tl.load(weight + channel, mask=channel < channels, other=0.0)[None, :]
        if BIAS:
            normed += tl.load(bias + channel, mask=channel < channels, other=0.0)[None, :]
        normed = normed.to(dtype).to(tl.float32)
        if MODULATE:
            factor = 1.0 + tl.load(scale + vector, mask=here, other=0.0).to(tl.float32)
            normed = (normed * factor.to(dtype).to(tl.float32)).to(dtype).to(tl.float32)
            normed += tl.load(shift + vector, mask=here, other=0.0).to(tl.float32)
        if SILU:
            normed = normed / (1.0 + tl.exp(-normed))
        normed = normed.to(dtype)
        if QUANTIZE:
            normed = tl.where(here, normed.to(tl.float32), 0.0)
            row_scale = tl.maximum(tl.max(tl.abs(normed), axis=1) / largest, smallest_scale)
            normed *= (1.0 / row_scale)[:, None]
            # A NaN stays one: as a large number it would get past the check of the result.
            normed = tl.clamp(normed, -largest, largest, propagate_nan=tl.PropagateNan.ALL)
            tl.store(scales + row, row_scale, mask=row < rows)
        tl.store(out + place, normed.to(out.dtype.element_ty), mask=here)


@triton.jit
def _norm_rotate_kernel(
    x,  # [tokens, parts, heads, DIM], changed in place
    first_gamma,  # [heads, DIM] float32, of part 0
    second_gamma,  # of part 1
    phases,  # [tokens, DIM / 2, 2] float32: cosine, sine
    parts,
    heads,
    root,
    NORM: tl.constexpr,
    ROTATE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
):
    dtype = x.dtype.element_ty
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, channel = tl.arange(0, BLOCK_HEADS), tl.arange(0, DIM)
    here = (head < heads)[:, None] & (channel < DIM)[None, :]
    inside = head[:, None] * DIM + channel[None, :]
    place = (token * parts + part) * heads * DIM + inside
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    if NORM:
        length = tl.sqrt(tl.sum(value * value, axis=1))
        value = value / tl.maximum(length, 1e-12)[:, None]
        if part == 0:
            gamma = tl.load(first_gamma + inside, mask=here, other=0.0)
        else:
            gamma = tl.load(second_gamma + inside, mask=here, other=0.0)
        value = value * gamma * root
        value = value.to(dtype).to(tl.float32)
    if ROTATE:
        pair = tl.load(phases + token * DIM + channel)
        cosine, sine = tl.split(tl.reshape(pair, (DIM // 2, 2)))
        even, odd = tl.split(tl.reshape(value, (BLOCK_HEADS, DIM // 2, 2)))
        turned = tl.join(
            even * cosine[None, :] - odd * sine[None, :], even * sine[None, :] + odd * cosine[None, :]
        )
        value = tl.reshape(turned, (BLOCK_HEADS, DIM))
    tl.store(x + place, value.to(dtype), mask=here)


def _power_of_two(n: int) -> int:
    """The smallest power of two that is not below n; Triton's own costs as much as half a launch."""
    return 1 << (n - 1).bit_length()


def residual_norm(
    x: torch.Tensor,
    branch: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    items: torch.Tensor | None = None,
    length: int = 1,
    eps: float = 1e-6,
    branch_per_item: bool = False,
    norm: bool = True,
    silu: bool = False,
    quantize: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | QuantizedRows]:
    """`(x + gate * branch, its modulated or affine layer norm)`, both `[T, C]`; see `elementwise`.

    `gate, shift, scale [B, C]` may be slices of one wider row each; `items [T]` names each row's item, or
    `length` consecutive rows belong to one. Without `norm` the second result is the first; with `quantize` it
    is in 8-bit floats.
    """
    x = x.contiguous()
    rows, channels = x.shape
    total = x if branch is None else torch.empty_like(x)
    out = torch.empty_like(x, dtype=FP8 if quantize else x.dtype) if norm else total
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device) if quantize else x
    made = QuantizedRows(out, scales, x.dtype) if quantize else out
    if not rows:
        return total, made
    vectors = [v for v in (gate, shift, scale) if v is not None]
    if any(v.stride(-1) != 1 or v.stride(0) != vectors[0].stride(0) for v in vectors):
        raise ValueError("gate, shift and scale must be rows of one layout")
    block_channels = _power_of_two(channels)
    block_rows = max(1, 2048 // block_channels)
    _residual_norm_kernel[(-(-rows // block_rows),)](
        x,
        x if branch is None else branch.contiguous(),
        x if gate is None else gate,
        x if shift is None else shift,
        x if scale is None else scale,
        x if weight is None else weight,
        x if bias is None else bias,
        x if items is None else items,
        total,
        out,
        scales,
        LARGEST,
        SMALLEST_SCALE,
        rows,
        length,
        channels,
        vectors[0].stride(0) if vectors else 0,
        eps,
        BRANCH=branch is not None,
        BRANCH_PER_ITEM=branch_per_item,
        GATE=gate is not None,
        NORM=norm,
        MODULATE=scale is not None,
        WEIGHT=weight is not None,
        BIAS=bias is not None,
        SILU=silu,
        RAGGED=items is not None,
        QUANTIZE=quantize,
        BLOCK_ROWS=block_rows,
        BLOCK_CHANNELS=block_channels,
        num_warps=min(16, max(4, block_channels // 512)),
        enable_fp_fusion=False,  # it would fuse a product and a sum of 16 bits, and skip the rounding between
    )
    return total, made


def norm_rotate_(
    x: torch.Tensor, parts: int, gammas: Sequence[torch.Tensor], phases: torch.Tensor | None
) -> torch.Tensor:
    """RMS-normalises and rotates the first `parts` (one or two) of `x [T, P, H, D]` in place.

    `gammas`: one `[H, D]` float32 for each of them, or none (no norm); `phases [T, D/2]` complex64 or None
    (no rotation). D must be a power of two.
    """
    tokens, all_parts, heads, dim = x.shape
    if tokens and parts:
        _norm_rotate_kernel[(tokens, parts)](
            x,
            gammas[0] if gammas else x,
            gammas[-1] if gammas else x,
            x if phases is None else torch.view_as_real(phases),
            all_parts,
            heads,
            dim**0.5,
            NORM=bool(gammas),
            ROTATE=phases is not None,
            DIM=dim,
            BLOCK_HEADS=_power_of_two(heads),
            num_warps=4,
            enable_fp_fusion=False,
        )
    return x
