"""The sparse-structure VAE: dense 3D convolutions between a 64^3 occupancy and a 16^3 latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InvalidArgumentError
from ..nn.layers import ChannelLayerNorm32, Conv3d, GroupNorm32
from .base import Model


def pixel_shuffle_3d(x: torch.Tensor, factor: int) -> torch.Tensor:
    """`[B, f^3 C, X, Y, Z]` to `[B, C, fX, fY, fZ]`; channel-major, the x offset is the most significant."""
    x = x.unflatten(1, (-1, factor, factor, factor))  # [B, C, a, b, c, X, Y, Z]
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)  # [B, C, X, a, Y, b, Z, c]
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def make_norm(kind: str, channels: int) -> nn.Module:
    if kind == "layer":
        return ChannelLayerNorm32(channels, eps=1e-5)
    if kind == "group":
        return GroupNorm32(32, channels, eps=1e-5)
    raise InvalidArgumentError(f"norm_type {kind!r} is neither 'layer' nor 'group'")


class ResBlock3d(nn.Module):
    """Norm, SiLU, convolution, twice, beside a skip connection."""

    def __init__(self, channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        out_channels = out_channels or channels
        self.norm1 = make_norm("layer", channels)
        self.norm2 = make_norm("layer", out_channels)
        self.conv1 = Conv3d(channels, out_channels, 3, padding=1)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1)
        if not self.conv2.weight.is_meta:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        self.skip_connection = (
            Conv3d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: torch.Tensor = h + self.skip_connection(x)
        return out


class DownsampleBlock3d(nn.Module):
    """Strided 2^3 convolution."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3d(channels, out_channels, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


class UpsampleBlock3d(nn.Module):
    """Convolution to eight times the channels, then pixel shuffle."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv3d(channels, 8 * out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pixel_shuffle_3d(self.conv(x), 2)


class _SparseStructureNet(Model):
    stores_one_dtype = False
    blocks: nn.ModuleList
    middle_block: nn.Sequential

    @property
    def torso(self) -> list[nn.Module]:
        return [self.blocks, self.middle_block]


class SparseStructureEncoder(_SparseStructureNet):
    """Occupancy `[B, 1, 64, 64, 64]` to latent `[B, 8, 16, 16, 16]`."""

    def __init__(
        self,
        in_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],
        num_res_blocks_middle: int = 2,
        norm_type: str = "layer",
        use_fp16: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_channels = latent_channels
        self.input_layer = Conv3d(in_channels, channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for i, width in enumerate(channels):
            blocks += [ResBlock3d(width) for _ in range(num_res_blocks)]
            if i < len(channels) - 1:
                blocks.append(DownsampleBlock3d(width, channels[i + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.middle_block = nn.Sequential(*(ResBlock3d(channels[-1]) for _ in range(num_res_blocks_middle)))
        self.out_layer = nn.Sequential(
            make_norm(norm_type, channels[-1]),
            nn.SiLU(),
            Conv3d(channels[-1], 2 * latent_channels, 3, padding=1),
        )
        self.convert_to(torch.float16 if use_fp16 else torch.float32)

    def forward(
        self, x: torch.Tensor, sample_posterior: bool = False, return_raw: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The mean (or a sample of the posterior); `(z, mean, logvar)` with `return_raw`."""
        h = self.input_layer(x).to(self.dtype)
        for block in self.blocks:
            h = block(h)
        h = self.middle_block(h)
        mean, logvar = self.out_layer(h.to(x.dtype)).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if sample_posterior else mean
        return (z, mean, logvar) if return_raw else z


class SparseStructureDecoder(_SparseStructureNet):
    """Latent `[B, 8, 16, 16, 16]` to occupancy logits `[B, 1, 64, 64, 64]`; occupied where > 0."""

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],
        num_res_blocks_middle: int = 2,
        norm_type: str = "layer",
        use_fp16: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.latent_channels = latent_channels
        self.input_layer = Conv3d(latent_channels, channels[0], 3, padding=1)
        self.middle_block = nn.Sequential(*(ResBlock3d(channels[0]) for _ in range(num_res_blocks_middle)))
        blocks: list[nn.Module] = []
        for i, width in enumerate(channels):
            blocks += [ResBlock3d(width) for _ in range(num_res_blocks)]
            if i < len(channels) - 1:
                blocks.append(UpsampleBlock3d(width, channels[i + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.out_layer = nn.Sequential(
            make_norm(norm_type, channels[-1]), nn.SiLU(), Conv3d(channels[-1], out_channels, 3, padding=1)
        )
        self.convert_to(torch.float16 if use_fp16 else torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.middle_block(self.input_layer(x).to(self.dtype))
        for block in self.blocks:
            h = block(h)
        out: torch.Tensor = self.out_layer(h.to(x.dtype))
        return out
