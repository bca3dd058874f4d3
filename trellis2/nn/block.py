"""The one block of the flow transformers: modulated self-attention, cross-attention, modulated MLP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .attention import CrossAttention, KeyValue, PixelCrossAttention, SelfAttention
from .elementwise import Affine, Modulation, add_norm, gated_add, linear_gelu, norm
from .fp8 import Fp8Linear, takes_quantized
from .layers import LayerNorm32, Linear
from .precision import QuantizedRows
from .tokens import TokenLayout


class FeedForward(nn.Module):
    """Linear, GELU (tanh approximation), Linear."""

    def __init__(self, channels: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            Linear(channels, hidden), nn.GELU(approximate="tanh"), Linear(hidden, channels)
        )

    @property
    def entrance(self) -> nn.Module:
        """The layer that takes the tokens."""
        return self.mlp[0]

    def forward(self, x: torch.Tensor | QuantizedRows) -> torch.Tensor:
        first, _, second = self.mlp
        if isinstance(second, Fp8Linear) or isinstance(x, QuantizedRows):
            quantized: torch.Tensor = second(first(x), gelu=True)
            return quantized
        out: torch.Tensor = second(linear_gelu(first, x))  # type: ignore[arg-type]
        return out


class ModulatedTransformerCrossBlock(nn.Module):
    """Tokens `[T, C]` of a batch of sequences through one block.

    With `share_mod` the modulation vector `[B, 6C]` comes from outside and the block adds its own; without,
    the block projects the timestep embedding `[B, C]` itself. `modulations` does the former for many blocks.
    With `feature_channels` the block is pixel-aligned: each token has a feature of its own too.
    """

    def __init__(
        self,
        channels: int,
        ctx_channels: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qk_rms_norm: bool = False,
        qk_rms_norm_cross: bool = False,
        share_mod: bool = False,
        feature_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.share_mod = share_mod
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=1e-6)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=1e-6)
        self.self_attn = SelfAttention(channels, num_heads, qk_rms_norm)
        self.cross_attn: CrossAttention | PixelCrossAttention = (
            CrossAttention(channels, ctx_channels, num_heads, qk_rms_norm_cross)
            if feature_channels is None
            else PixelCrossAttention(channels, ctx_channels, num_heads, qk_rms_norm_cross, feature_channels)
        )
        self.mlp = FeedForward(channels, mlp_ratio)
        if share_mod:
            self.modulation = nn.Parameter(torch.randn(6 * channels) / channels**0.5)
        else:
            self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(channels, 6 * channels))

    def forward(
        self,
        x: torch.Tensor,
        layout: TokenLayout,
        mod: torch.Tensor,
        context: KeyValue,
        context_layout: TokenLayout,
        phases: torch.Tensor | None,
        vectors: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`x [T, C]`, `mod [B, 6C]` (shared) or `[B, C]`, `phases [T, D/2]` complex or None; returns `[T,
        C]`. `vectors [B, 6C]`: this block's, where `modulations` has made them. `features [T, P]` of a
        pixel-aligned block, None for zeros.
        """
        if vectors is None:
            vectors = modulations([self], mod)[0] if self.share_mod else self.adaLN_modulation(mod)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = vectors.chunk(6, dim=-1)
        rows = x.shape[0]
        self_8, cross_8, mlp_8 = (
            takes_quantized(part.entrance, rows) for part in (self.self_attn, self.cross_attn, self.mlp)
        )
        h = norm(x, Modulation(shift_msa, scale_msa), layout, self.norm1.eps, self_8)
        branch = self.self_attn(h, layout, phases)
        affine = Affine(self.norm2.weight, self.norm2.bias)
        if context.result is None:
            x, h = add_norm(x, branch, gate_msa, affine, layout, self.norm2.eps, cross_8)
            branch = self.cross_attn(h, layout, context, context_layout, features)
        else:
            x = gated_add(x, branch, gate_msa, layout)
            branch = context.result
        x, h = add_norm(x, branch, None, Modulation(shift_mlp, scale_mlp), layout, self.norm3.eps, mlp_8)
        return gated_add(x, self.mlp(h), gate_mlp, layout)


def modulations(blocks: Sequence[ModulatedTransformerCrossBlock], mod: torch.Tensor) -> torch.Tensor:
    """The vectors `[blocks, B, 6C]` of blocks with a shared `mod [B, 6C]`, in three launches for all of them.

    The sum with a block's own float32 vector is formed in float32, then rounded to the torso's dtype.
    """
    return (torch.stack([block.modulation for block in blocks])[:, None] + mod).to(mod.dtype)
