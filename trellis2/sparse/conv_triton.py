"""The submanifold convolution as an implicit matrix product in Triton, forward and backward.

A program makes one tile of output rows by one block of output channels: for every tap that the tile needs it
gathers the neighbours' channels straight into the matrix units. Nothing 27 times as large as the features is
ever written. `conv_torch` is the portable twin; products are summed in float32 and rounded once.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from .conv_plan import TILE, ConvPlan, conv_plan_of
from .neighbors import KERNEL_VOLUME
from .tensor import SparseTensor

TAPS = tl.constexpr(KERNEL_VOLUME)


# Counts of voxels differ in every run; specialised, each that 16 divides would be compiled apart.
@triton.jit(do_not_specialize=["rows"])
def _correlate_kernel(
    feats,  # [rows, ci]
    weight,  # [co, 27, ci]
    bias,  # [co]
    out,  # [rows, co]
    order,
    neighbors,
    taps,
    counts,
    rows,
    ci,
    co,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    columns = tl.cdiv(co, BLOCK_N)
    # Programs side by side share a tile's gathered rows through the L2 cache.
    tile = tl.program_id(0) // columns
    column = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    places = tl.arange(0, BLOCK_M)
    row = tl.load(order + tile * BLOCK_M + places)
    chunks = tl.cdiv(ci, BLOCK_K)
    tile_neighbors = neighbors + tile.to(tl.int64) * TAPS * BLOCK_M
    weight_rows = weight + column.to(tl.int64)[None, :] * TAPS * ci
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(tl.load(counts + tile) * chunks):
        tap = tl.load(taps + tile * TAPS + step // chunks)
        channel = (step % chunks) * BLOCK_K + tl.arange(0, BLOCK_K)
        neighbor = tl.load(tile_neighbors + tap * BLOCK_M + places)
        gathered = tl.load(
            feats + neighbor.to(tl.int64)[:, None] * ci + channel[None, :],
            mask=(neighbor < rows)[:, None] & (channel < ci)[None, :],
            other=0.0,
        )
        kernel = tl.load(
            weight_rows + tap * ci + channel[:, None],
            mask=(column < co)[None, :] & (channel < ci)[:, None],
            other=0.0,
        )
        total = tl.dot(gathered, kernel, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < co, other=0.0).to(tl.float32)[None, :]
    tl.store(
        out + row.to(tl.int64)[:, None] * co + column[None, :],
        total.to(out.dtype.element_ty),
        mask=(row < rows)[:, None] & (column < co)[None, :],
    )


@triton.jit(do_not_specialize=["rows", "tiles"])
def _weight_gradient_kernel(
    feats,  # [rows, ci]
    grad,  # [rows, co]
    partial,  # [splits, co, 27, ci] float32
    order,
    neighbors,
    rows,
    tiles,
    ci,
    co,
    PRECISION: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CO: tl.constexpr,
    BLOCK_CI: tl.constexpr,
):
    ci_blocks = tl.cdiv(ci, BLOCK_CI)
    tap = tl.program_id(1)
    split, splits = tl.program_id(2), tl.num_programs(2)
    out_channel = (tl.program_id(0) // ci_blocks) * BLOCK_CO + tl.arange(0, BLOCK_CO)
    in_channel = (tl.program_id(0) % ci_blocks) * BLOCK_CI + tl.arange(0, BLOCK_CI)
    parts = TILE_ROWS // BLOCK_ROWS
    share = tl.cdiv(tiles, splits)
    first = split * share * parts
    last = tl.minimum((split + 1) * share, tiles) * parts
    total = tl.zeros((BLOCK_CO, BLOCK_CI), dtype=tl.float32)
    for block in range(first, last):
        tile = block // parts
        places = (block % parts) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        row = tl.load(order + tile * TILE_ROWS + places)
        neighbor = tl.load(neighbors + (tile.to(tl.int64) * TAPS + tap) * TILE_ROWS + places)
        upstream = tl.load(
            grad + row.to(tl.int64)[:, None] * co + out_channel[None, :],
            mask=(row < rows)[:, None] & (out_channel < co)[None, :],
            other=0.0,
        )
        gathered = tl.load(
            feats + neighbor.to(tl.int64)[:, None] * ci + in_channel[None, :],
            mask=(neighbor < rows)[:, None] & (in_channel < ci)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(upstream), gathered, total, input_precision=PRECISION)
    place = ((split * co + out_channel.to(tl.int64)[:, None]) * TAPS + tap) * ci + in_channel[None, :]
    tl.store(partial + place, total, mask=(out_channel < co)[:, None] & (in_channel < ci)[None, :])


@dataclass(frozen=True)
class Blocks:
    """How a kernel's work is cut: block shape, warps, and how many loads are in flight."""

    n: int
    k: int
    warps: int
    stages: int


@cache
def _shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may use."""
    if device.type != "cuda":
        return 99 * 1024
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", 99 * 1024))


def _power_of_two(size: int, low: int, high: int) -> int:
    return min(max(triton.next_power_of_2(size), low), high)


def blocks_for(device: torch.device, dtype: torch.dtype, ci: int, co: int) -> Blocks:
    """The block shape for a convolution of `ci` to `co` channels."""
    wide = dtype == torch.float32
    n = _power_of_two(co, 16, 64 if wide else 128)
    k = _power_of_two(ci, 16, 32 if wide else 64)
    stage = (TILE + n) * k * dtype.itemsize
    stages = max(1, min(4, _shared_memory(device) // 2 // stage))
    return Blocks(n, k, 8 if n >= 128 or wide else 4, stages)


def _precision(dtype: torch.dtype) -> str:
    """float32 products follow torch's own switch; 16-bit ones are exact either way."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def correlate(
    feats: torch.Tensor,
    plan: ConvPlan,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    blocks: Blocks | None = None,
) -> torch.Tensor:
    """`[T, Co]` for features `[T, Ci]` and a kernel `[Co, 27, Ci]`, without autograd."""
    rows, ci = feats.shape
    co = weight.shape[0]
    out = feats.new_empty(rows, co)
    if not rows:
        return out
    blocks = blocks or blocks_for(feats.device, feats.dtype, ci, co)
    _correlate_kernel[(plan.tiles * triton.cdiv(co, blocks.n),)](
        feats.contiguous(),
        weight.contiguous(),
        out if bias is None else bias.contiguous(),
        out,
        plan.order,
        plan.neighbors,
        plan.taps,
        plan.counts,
        rows,
        ci,
        co,
        HAS_BIAS=bias is not None,
        PRECISION=_precision(feats.dtype),
        BLOCK_M=TILE,
        BLOCK_N=blocks.n,
        BLOCK_K=blocks.k,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out


def weight_gradient(feats: torch.Tensor, grad: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """`[Co, 27, Ci]` float32. Sums are formed in a fixed order, so that a training run repeats exactly."""
    ci, co = feats.shape[1], grad.shape[1]
    if not plan.rows:
        return feats.new_zeros(co, KERNEL_VOLUME, ci, dtype=torch.float32)
    widest = 32 if feats.dtype == torch.float32 else 128
    block_co, block_ci = _power_of_two(co, 16, widest), _power_of_two(ci, 16, widest)
    blocks = triton.cdiv(co, block_co) * triton.cdiv(ci, block_ci)
    # Few channels make few programs; splitting the rows fills the device.
    splits = max(1, min(plan.tiles, 32, 1024 // (blocks * KERNEL_VOLUME)))
    partial = feats.new_empty(splits, co, KERNEL_VOLUME, ci, dtype=torch.float32)
    _weight_gradient_kernel[(blocks, KERNEL_VOLUME, splits)](
        feats.contiguous(),
        grad.contiguous(),
        partial,
        plan.order,
        plan.neighbors,
        plan.rows,
        plan.tiles,
        ci,
        co,
        PRECISION=_precision(feats.dtype),
        TILE_ROWS=TILE,
        BLOCK_ROWS=32 if feats.dtype == torch.float32 else 64,
        BLOCK_CO=block_co,
        BLOCK_CI=block_ci,
        num_warps=4 if block_co * block_ci <= 64 * 64 else 8,
        num_stages=2,
    )
    return partial.sum(0)


class _TritonConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feats: torch.Tensor, plan: ConvPlan, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.plan = plan
        ctx.has_bias = bias is not None
        return correlate(feats, plan, weight.flatten(1, 3), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        feats, weight = ctx.saved_tensors
        grad_feats = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            # If q is p's neighbour v, then p is q's neighbour 26-v: the same plan, the kernel turned around.
            turned = weight.flatten(1, 3).flip(1).permute(2, 1, 0)
            grad_feats = correlate(grad, ctx.plan, turned, None)
        if ctx.needs_input_grad[2]:
            grad_weight = weight_gradient(feats, grad, ctx.plan).view_as(weight).to(weight.dtype)
        if ctx.has_bias and ctx.needs_input_grad[3]:
            grad_bias = grad.sum(0, dtype=torch.float32).to(weight.dtype)
        return grad_feats, None, grad_weight, grad_bias


def planned_conv(
    feats: torch.Tensor, plan: ConvPlan, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Submanifold 3x3x3 convolution `[T, Co]`, differentiable: `feats [T, Ci]`, `weight [Co, 3, 3, 3, Ci]`,
    `bias [Co]`, all of one dtype (float16, bfloat16 or float32).
    """
    out: torch.Tensor = _TritonConv.apply(feats, plan, weight, bias)
    return out


def submanifold_conv3d(x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolved features `[T, Co]`; the plan travels with the coordinates."""
    return planned_conv(x.feats, conv_plan_of(x), weight, bias)
