"""The timestep's embedding."""

from __future__ import annotations

import math

import torch
from torch import nn

from .layers import Linear


def timestep_frequencies(t: torch.Tensor, size: int = 256, max_period: float = 10000.0) -> torch.Tensor:
    """`[cos(t f_k), sin(t f_k)]` with `f_k = max_period^(-k / half)`, `[B, size]` float32 for `t [B]`."""
    half = size // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * k / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """Sinusoid of 256 through a two-layer MLP: `t [B]` (1000 times the sampler's time) to `[B, channels]`."""

    def __init__(self, channels: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(Linear(frequencies, channels), nn.SiLU(), Linear(channels, channels))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.mlp(timestep_frequencies(t, self.frequencies))
        return embedded
