"""NAF: a picture's patch features at any of its pixels, by attention guided by the picture itself.

The features of `n`x`n` patches are read at a `T`x`T` grid of pixels: each pixel attends to the 9x9 block of
patches around its own, by queries and keys made from the full picture. The result at one pixel depends on no
other pixel, so it is computed only where it is asked for: exact, and without the gigabytes of the dense map.
Source: NAF (valeoai); the windows at the borders are those of its dilated neighbourhood attention.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import CheckpointError, InvalidArgumentError

KERNEL = 9
PERIOD_BASE = 100.0
SCORES_AT_ONCE = 1 << 24  # products of a query and a key, 64 MiB


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = _conv(width, width, kernel)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = _conv(width, width, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(F.silu(_normed(self.norm1, x), inplace=True))
        out: torch.Tensor = self.conv2(F.silu(_normed(self.norm2, x), inplace=True))
        return out


def _normed(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Group norm of `[B, C, H, W]`; torch's own CUDA kernel gives each of the few large groups one block."""
    return norm(x) if x.device.type == "cpu" else group_norm_by_channels(norm, x)


def group_norm_by_channels(norm: nn.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Group norm from each channel's moments, whose reduction fills a GPU: the law of total variance."""
    var, mean = torch.var_mean(x.flatten(2), dim=2, correction=0)  # [B, C]
    by_group = mean.unflatten(1, (norm.num_groups, -1))
    group_var = var.unflatten(1, (norm.num_groups, -1)).mean(2) + by_group.var(2, correction=0)
    size = x.shape[1] // norm.num_groups
    scale = norm.weight * (group_var + norm.eps).rsqrt().repeat_interleave(size, 1)
    shift = norm.bias - by_group.mean(2).repeat_interleave(size, 1) * scale
    return torch.addcmul(shift[..., None, None], x, scale[..., None, None])


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")


class _Rope(nn.Module):
    periods: torch.Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = 4 * torch.arange(head_dim // 4) / head_dim
        self.register_buffer("periods", PERIOD_BASE**exponents)


class GuideEncoder(nn.Module):
    """A picture's full-resolution guide: a branch of 1x1 and one of 3x3 convolutions, side by side."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()

        def branch(kernel: int) -> nn.Sequential:
            half = dim // 2
            return nn.Sequential(_conv(3, half, kernel), _Block(half, kernel), _Block(half, kernel))

        self.encoder = branch(1)
        self.sem_encoder = branch(3)
        self.rope = _Rope(dim // heads)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """`[B, 3, S, S]` in 0..1 to `[B, dim, S, S]`."""
        return torch.cat([self.encoder(pictures), self.sem_encoder(pictures)], dim=1)


@dataclass(frozen=True)
class Guide:
    """What one picture gives for one pair of grids: rotated queries `[T*T, H, D]` and keys `[n, n, H, D]`."""

    queries: torch.Tensor
    keys: torch.Tensor

    @property
    def side(self) -> int:
        """T, the side of the grid of pixels."""
        return math.isqrt(len(self.queries))


class NAF(nn.Module):
    """The frozen upsampler; state-dict keys are those of the published file."""

    def __init__(self, dim: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.image_encoder = GuideEncoder(dim, heads)

    def encode(self, picture: torch.Tensor, largest: int) -> torch.Tensor:
        """The guide `[dim, S', S']` of a picture `[3, S, S]` in 0..1 (not normalised), for grids up to
        `largest`.
        """
        if picture.ndim != 3 or picture.shape[0] != 3 or picture.shape[1] != picture.shape[2]:
            raise InvalidArgumentError(f"NAF takes square pictures [3, S, S], got {list(picture.shape)}")
        batch = picture[None]
        if picture.shape[1] > 4 * largest:
            batch = F.interpolate(batch, (4 * largest, 4 * largest), mode="bilinear", align_corners=False)
        if batch.device.type == "cpu":  # a third faster there, and what follows reads channels together
            batch = batch.contiguous(memory_format=torch.channels_last)
        encoded: torch.Tensor = self.image_encoder(batch)[0]
        return encoded

    def guide(self, encoded: torch.Tensor, side: int, patches: int) -> Guide:
        """Queries on a `side`x`side` grid and keys of `patches`x`patches` cells from what `encode` returned.

        Raises `InvalidArgumentError` unless there are at least 9 patches a side that divide the grid.
        """
        if patches < KERNEL or side % patches:
            raise InvalidArgumentError(
                f"NAF needs at least {KERNEL} patches a side that divide its grid, got {patches} and {side}"
            )
        pooled = encoded if encoded.shape[-1] == side else F.adaptive_avg_pool2d(encoded, side)
        d, head_dim = side // patches, pooled.shape[0] // self.heads
        queries = pooled.new_empty(side, side, self.heads, head_dim)
        keys = pooled.new_empty(patches, patches, self.heads, head_dim)
        cos, sin = self._turns(side)
        for row in range(patches):  # a band of pixels at a time: rotating makes copies
            band = slice(row * d, (row + 1) * d)
            x = pooled[:, band].permute(1, 2, 0).unflatten(2, (self.heads, head_dim))
            a, b = x.chunk(2, dim=-1)
            c, s = cos[band], sin[band]
            queries[band] = torch.cat([a * c - b * s, b * c + a * s], dim=-1)
            keys[row] = queries[band].unflatten(1, (patches, d)).mean((0, 2))
        return Guide(queries.flatten(0, 1), keys)

    def _turns(self, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `[T, T, 1, D/2]`: rows' angles, then columns'."""
        periods = self.image_encoder.rope.periods
        places = (torch.arange(side, device=periods.device) + 0.5) / side * 2 - 1
        angles = 2 * math.pi * places[:, None] / periods
        rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
        both = torch.cat([rows, columns], dim=-1)[:, :, None]
        return both.cos(), both.sin()


def upsample_at(
    guide: Guide, values: torch.Tensor, pixels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted sums of the upsampled map at pixels: `[N, C]` float32.

    `values [n, n, C]` are the patch features; `pixels [N, K]` int64 index the `T`x`T` grid row by row,
    `weights [N, K]` go with them. Everything after the softmax is linear, so the patches of a row's pixels
    are summed in one go.
    """
    n, _, heads, head_dim = guide.keys.shape
    side, d = guide.side, guide.side // n
    keys = guide.keys.flatten(0, 1).permute(1, 2, 0) * head_dim**-0.5  # [H, D, n*n]
    block = torch.arange(KERNEL, device=pixels.device)
    block = (block[:, None] * n + block).flatten()
    parts = values.flatten(0, 1).chunk(heads, dim=1)
    out = values.new_empty(len(pixels), values.shape[2])
    at_once = max(1, SCORES_AT_ONCE // (n * n * heads * pixels.shape[1]))
    for start in range(0, len(pixels), at_once):
        rows = slice(start, start + at_once)
        pixel = pixels[rows].flatten()
        top, left = ((x // d - KERNEL // 2).clamp(0, n - KERNEL) for x in (pixel // side, pixel % side))
        cells = (top * n + left)[:, None] + block  # [N*K, 81]
        # Scores of all cells, of which 81 are used: one product beats gathering each pixel's keys.
        scores = (guide.queries[pixel].transpose(0, 1) @ keys).gather(2, cells.expand(heads, -1, -1))
        share = scores.softmax(-1) * weights[rows].flatten()[:, None]
        bags, shares = cells.view(len(pixels[rows]), -1), share.view(heads, len(pixels[rows]), -1)
        for head, part in enumerate(parts):
            columns = slice(head * part.shape[1], (head + 1) * part.shape[1])
            out[rows, columns] = F.embedding_bag(bags, part, per_sample_weights=shares[head], mode="sum")
    return out


def load_naf(path: Path) -> NAF:
    """The upsampler from its published file (`.pth`) or the same tensors as safetensors.

    Raises `CheckpointError` when the file cannot be read or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        dim = 2 * len(tensors["image_encoder.encoder.0.bias"])
        model = NAF(dim, dim // (4 * len(tensors["image_encoder.rope.periods"])))
        model.load_state_dict(tensors)
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise CheckpointError(f"no usable NAF upsampler at {path}: {error}") from error
    return model.float().eval().requires_grad_(False)
