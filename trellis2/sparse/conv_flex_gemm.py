"""The convolution through the `flex_gemm` package (CUDA only; imported on first use)."""

from __future__ import annotations

import torch

from .tensor import SparseTensor


def submanifold_conv3d(x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolved features `[T, Co]`; the package's neighbour cache travels with the coordinates."""
    from flex_gemm.ops.spconv import sparse_submanifold_conv3d

    memo = x.scale_cache.memo
    key = ("flex_gemm", x.device)
    shape = torch.Size([x.batch_size, x.feats.shape[1], *x.spatial_shape])
    out, memo[key] = sparse_submanifold_conv3d(
        x.feats.contiguous(), x.coords, shape, weight, bias, memo.get(key), (1, 1, 1)
    )
    result: torch.Tensor = out
    return result
