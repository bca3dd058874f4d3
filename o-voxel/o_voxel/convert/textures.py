"""Textures with mip chains, sampled bilinearly with repeat wrapping."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError

MAX_SIDE = 1 << 14


class Texture:
    """An 8-bit image and its mip chain.

    Args:
        image: uint8 `[S, S, C]`, `S` a power of two; row 0 is the top (v = 1).
        device: where lookups run.
    """

    def __init__(self, image: np.ndarray, device: torch.device | str = "cpu") -> None:
        side = image.shape[0]
        if image.ndim != 3 or image.shape[1] != side or side & (side - 1) or not 1 <= side <= MAX_SIDE:
            raise ArgumentError(f"a texture must be square with a power of two a side; got {image.shape}")
        self.side = side
        self.mips: list[Tensor] = []
        level = np.ascontiguousarray(image)
        while True:
            self.mips.append(torch.from_numpy(level.copy()).to(device))
            if len(level) == 1:
                break
            corners = level.astype(np.uint16)
            total = corners[::2, ::2] + corners[1::2, ::2] + corners[::2, 1::2] + corners[1::2, 1::2]
            level = (total // 4).astype(np.uint8)  # truncated, as the stored attributes were

    def lookup(self, uv: Tensor, level: Tensor) -> Tensor:
        """Values in 0..1 at `uv [K, 2]` (v up) between the mips around `level [K]`; float64 `[K, C]`."""
        last = len(self.mips) - 1
        level = torch.where(torch.isfinite(level), level, 0.0).clamp(0.0, float(last))
        below = level.floor()
        blend = (level - below)[:, None]
        out = torch.zeros((len(uv), self.mips[0].shape[2]), dtype=torch.float64, device=uv.device)
        for index in range(last + 1):
            share = torch.where(
                below == index, 1 - blend[:, 0], torch.where(below == index - 1, blend[:, 0], 0.0)
            )
            used = (share > 0).nonzero(as_tuple=True)[0]
            if len(used):
                out[used] += share[used, None] * _bilinear(self.mips[index], uv[used])
        return out / 255.0


def square_power_of_two(image: np.ndarray) -> np.ndarray:
    """An image resampled (Lanczos) to a square, the power of two nearest to its longer side."""
    side = 1 << max(0, min(round(np.log2(max(image.shape[:2]))), MAX_SIDE.bit_length() - 1))
    if image.shape[:2] == (side, side):
        return image
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(image[:, :, c]).resize((side, side), Image.Resampling.LANCZOS))
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


def _bilinear(image: Tensor, uv: Tensor) -> Tensor:
    """Bilinear lookup with texel centres at +0.5, `[K, C]` in 0..255."""
    height, width = image.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = x.floor(), y.floor()
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    x0, y0 = left.remainder(width).long() % width, top.remainder(height).long() % height
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    upper = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    lower = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return upper * (1 - fy) + lower * fy
