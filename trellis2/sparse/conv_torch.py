"""The portable submanifold convolution: for each block of rows, gather 27 neighbours and multiply once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..nn.precision import compute_dtype

# Rows a block. On CPUs the gathered block should stay in cache; on GPUs launches should be few.
_CPU_BLOCK_BYTES = 8 * 2**20
_GPU_BLOCK_BYTES = 512 * 2**20


def _blocks(count: int, row_bytes: int, device: torch.device) -> Iterator[slice]:
    budget = _CPU_BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    low, high = (256, 1024) if device.type == "cpu" else (4096, 1 << 20)
    rows = min(max(budget // row_bytes, low), high)
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _with_zero_row(feats: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Features `[T + 1, C]` whose last row, the one that missing neighbours point to, is zero."""
    padded = torch.empty(feats.shape[0] + 1, feats.shape[1], dtype=dtype, device=feats.device)
    padded[:-1] = feats
    padded[-1] = 0
    return padded


def _gathered(padded: torch.Tensor, table: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of the `[T, 27 * C]` matrix of neighbour features, each valid until the next is asked for."""
    channels = padded.shape[1]
    width = table.shape[1] * channels
    buffer: torch.Tensor | None = None
    for rows in _blocks(table.shape[0], width * padded.element_size(), padded.device):
        index = table[rows].reshape(-1)
        if buffer is None:
            buffer = padded.new_empty(index.numel(), channels)
        block = buffer[: index.numel()]
        torch.index_select(padded, 0, index, out=block)
        yield rows, block.view(-1, width)


def _correlate(
    feats: torch.Tensor, table: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """`[T, Co]` for features `[T, Ci]` and a kernel `[27 * Ci, Co]`; one rounding to the features' dtype."""
    dtype = compute_dtype(feats.device, feats.dtype)
    matrix = matrix.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    out = feats.new_empty(feats.shape[0], matrix.shape[1])
    for rows, block in _gathered(_with_zero_row(feats, dtype), table):
        if dtype != out.dtype:
            out[rows] = block @ matrix if bias is None else torch.addmm(bias, block, matrix)
        elif bias is None:
            torch.mm(block, matrix, out=out[rows])
        else:
            torch.addmm(bias, block, matrix, out=out[rows])
    return out


class _SubmanifoldConv(torch.autograd.Function):
    """Keeps the features and the table for backward, never the 27-fold gathered matrix."""

    @staticmethod
    def forward(
        ctx: Any, feats: torch.Tensor, table: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(feats, table, weight)
        ctx.has_bias = bias is not None
        return _correlate(feats, table, weight.flatten(1).t(), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        feats, table, weight = ctx.saved_tensors
        grad_feats = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            # If q is p's neighbour v, then p is q's neighbour 26-v: the same table, the kernel turned around.
            turned = weight.flatten(1, 3).flip(1)  # [Co, 27, Ci]
            grad_feats = _correlate(grad, table, turned.transpose(0, 1).flatten(0, 1), None)
        if ctx.needs_input_grad[2]:
            dtype = compute_dtype(feats.device, feats.dtype)
            # Blocks are summed in float32: a 16-bit running sum would lose the small terms.
            total = torch.zeros(weight[0].numel(), weight.shape[0], dtype=torch.float32, device=feats.device)
            for rows, block in _gathered(_with_zero_row(feats, dtype), table):
                product = block.t() @ grad[rows].to(dtype)
                total += product
            grad_weight = total.t().reshape(weight.shape).to(weight.dtype)
        if ctx.has_bias and ctx.needs_input_grad[3]:
            grad_bias = grad.sum(0, dtype=torch.float32).to(weight.dtype)
        return grad_feats, None, grad_weight, grad_bias


def submanifold_conv(
    feats: torch.Tensor, table: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Submanifold 3x3x3 convolution `[T, Co]` on any device, differentiable.

    `feats [T, Ci]`, `table [T, 27]` from `neighbor_table`, `weight [Co, 3, 3, 3, Ci]`, `bias [Co]`, all of
    one floating dtype. Memory beyond input and output: one copy of the features and one gathered block.
    """
    out: torch.Tensor = _SubmanifoldConv.apply(feats, table, weight, bias)
    return out
