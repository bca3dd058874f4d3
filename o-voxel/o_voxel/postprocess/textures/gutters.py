"""Filling the space between charts with the nearest baked texel, so that filtering never reads background.

One nearest-texel lookup serves all textures. On the CPU an exact distance transform, on CUDA jump flooding
(Rong and Tan, "Jump Flooding in GPU", I3D 2006), which may miss the nearest by a texel here and there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import kernels


def nearest_covered(mask: Tensor) -> Tensor:
    """Flat index [H, W] int64 of the nearest covered texel of `mask` [H, W] bool; all -1 where none is
    covered."""
    if not bool(mask.any()):
        return torch.full(mask.shape, -1, dtype=torch.int64, device=mask.device)
    return nearest_by_flooding(mask) if mask.is_cuda else nearest_by_transform(mask)


def nearest_by_transform(mask: Tensor) -> Tensor:
    """Exact, through scipy's Euclidean distance transform."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~mask.cpu().numpy(), return_distances=False, return_indices=True)
    index = torch.from_numpy(rows).long() * mask.shape[1] + torch.from_numpy(columns)
    return index.to(mask.device)


def nearest_by_flooding(mask: Tensor) -> Tensor:
    """Jump flooding with a last round of step 1; any device."""
    height, width = mask.shape
    seed = torch.arange(height * width, dtype=torch.int32, device=mask.device)
    seed.masked_fill_(~mask.reshape(-1), -1)
    step = 1 << max(max(height, width) - 1, 1).bit_length() - 1
    for jump in [*(step >> k for k in range(step.bit_length())), 1]:
        seed = _jumped(seed, jump, height, width)
    return seed.long().reshape(height, width)


def _jumped(seed: Tensor, jump: int, height: int, width: int) -> Tensor:
    """The nearest of the seeds [H * W] int32 (-1: none) that a texel and the eight at `jump` know of."""
    from .gutter_kernels import jump_kernel

    nearer = torch.empty_like(seed)
    inputs = [jump, height, width, seed, nearer]
    kernels.launch(jump_kernel, len(seed), inputs, seed.device)
    return nearer


def fill(texture: Tensor, nearest: Tensor) -> Tensor:
    """`texture` [H, W, C] with each texel replaced by the one `nearest` [H, W] names; as it is where that
    is -1."""
    if bool((nearest < 0).any()):
        return texture
    flat = texture.reshape(-1, texture.shape[2])
    return flat[nearest.reshape(-1)].reshape(texture.shape)
