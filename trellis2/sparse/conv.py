"""The submanifold 3x3x3 convolution as a layer, and the choice of who computes it."""

from __future__ import annotations

import importlib
import math

import torch
from torch import nn

from ..backends import sparse_conv_backend
from ..errors import InvalidArgumentError
from ..nn.precision import autocasting
from .conv_torch import submanifold_conv
from .neighbors import neighbor_table_of
from .tensor import SparseTensor


class SparseConv3d(nn.Module):
    """Cross-correlation over the occupied voxels among the 27 around each voxel; voxels in = voxels out.

    `weight [Co, 3, 3, 3, Ci]` (axes x, y, z, channels last), `bias [Co]`. Kernel 3, stride 1 only.
    """

    follows_torso_dtype = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        super().__init__()
        if kernel_size != 3:
            raise InvalidArgumentError(f"only 3x3x3 submanifold kernels exist, got kernel_size={kernel_size}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, 3, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-uniform with a = sqrt(5), as torch's own convolutions."""
        if self.weight.is_meta:
            return
        bound = 1 / math.sqrt(self.weight[0].numel())
        # kaiming_uniform_ with a = sqrt(5) is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"

    def forward(self, x: SparseTensor) -> SparseTensor:
        if x.feats.shape[1] != self.in_channels:
            raise InvalidArgumentError(
                f"a convolution of {self.in_channels} channels was given features of {x.feats.shape[1]}"
            )
        return x.replace(sparse_conv3d(x, self.weight, self.bias))


def sparse_conv3d(x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolved features `[T, Co]`, by the implementation that `trellis2.backends` picks for this call."""
    if autocasting(x.feats):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = x.type(dtype)
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    needs_grad = torch.is_grad_enabled() and (x.feats.requires_grad or weight.requires_grad)
    channels = weight.shape[-1], weight.shape[0]
    backend = sparse_conv_backend(x.device, x.dtype, needs_grad, channels).backend
    if backend == "flex_gemm":
        from .conv_flex_gemm import submanifold_conv3d as by_flex_gemm

        return by_flex_gemm(x, weight, bias)
    if backend == "triton":
        # By name: the module needs Triton, and `trellis2.backends` has checked that it imports.
        triton = importlib.import_module("trellis2.sparse.conv_triton")
        out: torch.Tensor = triton.submanifold_conv3d(x, weight, bias)
        return out
    return submanifold_conv(x.feats, neighbor_table_of(x), weight, bias)
