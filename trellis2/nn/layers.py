"""Linear, dense convolution and norms with the precision rules of the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .elementwise import layer_norm, rms_norm
from .precision import autocasting, compute_dtype


class Linear(nn.Linear):
    """`nn.Linear` that widens 16-bit operands on CPUs that cannot multiply them fast."""

    follows_torso_dtype = True

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dtype = compute_dtype(input.device, input.dtype)
        if dtype == input.dtype or autocasting(input):
            return F.linear(input, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.linear(input.to(dtype), self.weight.to(dtype), bias).to(input.dtype)


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` with the same rule."""

    follows_torso_dtype = True

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dtype = compute_dtype(input.device, input.dtype)
        if dtype == input.dtype or autocasting(input):
            return self._conv_forward(input, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(dtype)
        return self._conv_forward(input.to(dtype), self.weight.to(dtype), bias).to(input.dtype)


class LayerNorm32(nn.LayerNorm):
    """Layer norm whose parameters and arithmetic are float32 whatever the torso's dtype."""

    def forward(self, input: torch.Tensor, silu: bool = False) -> torch.Tensor:
        return layer_norm(input, self.weight, self.bias, self.eps, silu)


class ChannelLayerNorm32(LayerNorm32):
    """Layer norm over axis 1 of a volume `[B, C, X, Y, Z]`."""

    def forward(self, input: torch.Tensor, silu: bool = False) -> torch.Tensor:
        out = super().forward(input.movedim(1, -1), silu).movedim(-1, 1)
        if input.is_contiguous(memory_format=torch.channels_last_3d):
            return out  # already laid out like its input
        return out.contiguous()


class GroupNorm32(nn.GroupNorm):
    """Group norm computed in float32 and cast back."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        out = super().forward(input.float())
        return out if autocasting(input) else out.to(input.dtype)


class MultiHeadRMSNorm(nn.Module):
    """L2-normalises each head's vector `[..., H, D]` and scales it by `gamma * sqrt(D)`, in float32, cast
    back.
    """

    def __init__(self, head_dim: int, heads: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.gamma)
