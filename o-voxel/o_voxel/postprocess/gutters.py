"""Filling the space between charts with the nearest baked texel, so that filtering never reads background.

One nearest-texel lookup serves all textures. On the CPU an exact distance transform, on CUDA jump flooding
(Rong and Tan, "Jump Flooding in GPU", I3D 2006), which may miss the nearest by a texel here and there.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    rows = torch.arange(height, device=mask.device)[:, None]
    columns = torch.arange(width, device=mask.device)[None, :]
    seed = torch.where(mask, rows * width + columns, -1)
    step = 1 << max(max(height, width) - 1, 1).bit_length() - 1
    steps = [step >> k for k in range(step.bit_length())] + [1]
    for jump in steps:
        best = _distance(seed, rows, columns)
        current = seed
        for dy in (-jump, 0, jump):
            for dx in (-jump, 0, jump):
                if not (dx or dy):
                    continue
                offered = _shifted(current, dy, dx)
                distance = _distance(offered, rows, columns)
                closer = distance < best
                seed = torch.where(closer, offered, seed)
                best = torch.where(closer, distance, best)
    return seed


def _distance(seed: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    width = columns.shape[1]
    squared = (seed // width - rows) ** 2 + (seed % width - columns) ** 2
    return torch.where(seed >= 0, squared, torch.iinfo(torch.int64).max)


def _shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    """`image` moved by (dy, dx), -1 where nothing moved in."""
    moved = torch.full_like(image, -1)
    height, width = image.shape
    if abs(dy) < height and abs(dx) < width:
        moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = image[
            max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
        ]
    return moved


def fill(texture: Tensor, nearest: Tensor) -> Tensor:
    """`texture` [H, W, C] with each texel replaced by the one `nearest` [H, W] names; as it is where that
    is -1."""
    if bool((nearest < 0).any()):
        return texture
    flat = texture.reshape(-1, texture.shape[2])
    return flat[nearest.reshape(-1)].reshape(texture.shape)
