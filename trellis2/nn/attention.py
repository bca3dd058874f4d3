"""The one attention call: softmax(q k^T / sqrt(D)) v inside each sequence of a token list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..backends import attention_backend
from ..errors import InvalidArgumentError
from .elementwise import norm_rotate
from .layers import Linear, MultiHeadRMSNorm
from .precision import autocasting
from .tokens import TokenLayout

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: TokenLayout, keys: TokenLayout
) -> torch.Tensor:
    """Attention of `q [Tq, H, D]` over `k, v [Tk, H, D]`; sequence i of `queries` sees only sequence i of
    `keys`.

    No mask, no dropout, scale 1/sqrt(D). Returns `[Tq, H, D]`. Raises InvalidArgumentError when the batches
    differ.
    """
    if queries.batch_size != keys.batch_size:
        raise InvalidArgumentError(
            f"{queries.batch_size} sequences attend to {keys.batch_size} contexts; give one context an item"
        )
    if autocasting(q):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    backend = attention_backend(q.device, q.dtype, torch.is_grad_enabled() and q.requires_grad).backend
    if backend == "flash_attn":
        return _flash(q, k, v, queries, keys)
    if queries.uniform and keys.uniform:
        b = queries.batch_size
        q, k, v = (x.unflatten(0, (b, -1)).transpose(1, 2) for x in (q, k, v))
        return _sdpa(q, k, v, backend).transpose(1, 2).flatten(0, 1)
    items = zip(*(x.split(n.lengths) for x, n in ((q, queries), (k, keys), (v, keys))), strict=True)
    batches = ([x.transpose(0, 1)[None] for x in item] for item in items)
    parts = [_sdpa(q, k, v, backend)[0].transpose(0, 1) for q, k, v in batches]
    return torch.cat(parts)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str) -> torch.Tensor:
    """Torch's attention on `[B, H, L, D]`; with "cudnn" by that library wherever it takes the shapes."""
    if backend != "cudnn":
        return F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return F.scaled_dot_product_attention(q, k, v)


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: TokenLayout, keys: TokenLayout
) -> torch.Tensor:
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    if queries.uniform and keys.uniform:
        b = queries.batch_size
        out: torch.Tensor = flash_attn_func(*(x.unflatten(0, (b, -1)) for x in (q, k, v)))
        return out.flatten(0, 1)
    out = flash_attn_varlen_func(
        q, k, v, queries.boundaries, keys.boundaries, max(queries.lengths), max(keys.lengths)
    )
    return out


def gamma_of(norm: nn.Module) -> torch.Tensor | None:
    """The gamma of a head norm; None for the identity in its place."""
    return norm.gamma if isinstance(norm, MultiHeadRMSNorm) else None


class SelfAttention(nn.Module):
    """Rotary self-attention inside each sequence; project, RMS-normalise q and k, rotate, attend, project."""

    def __init__(self, channels: int, heads: int, qk_rms_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = Linear(channels, 3 * channels)
        self.q_rms_norm = MultiHeadRMSNorm(channels // heads, heads) if qk_rms_norm else nn.Identity()
        self.k_rms_norm = MultiHeadRMSNorm(channels // heads, heads) if qk_rms_norm else nn.Identity()
        self.to_out = Linear(channels, channels)

    def forward(self, x: torch.Tensor, layout: TokenLayout, phases: torch.Tensor | None) -> torch.Tensor:
        """`x [T, C]`, `phases [T, D/2]` complex or None; returns `[T, C]`."""
        projected = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = norm_rotate(projected, (gamma_of(self.q_rms_norm), gamma_of(self.k_rms_norm)), phases)
        out: torch.Tensor = self.to_out(attention(q, k, v, layout, layout).flatten(1))
        return out


@dataclass(frozen=True)
class KeyValue:
    """One cross-attention's keys and values `[Tk, H, D]` of a context, ready to be attended to.

    Where every item's context is a single token the queries do not matter: `result [B, C]` is then what the
    whole cross-attention gives each item's tokens, and `k` and `v` are only kept to be joined with others.
    """

    k: torch.Tensor
    v: torch.Tensor
    result: torch.Tensor | None = None


class CrossAttention(nn.Module):
    """Attention of tokens over the (un-normalised) image tokens of their item."""

    def __init__(self, channels: int, context_channels: int, heads: int, qk_rms_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(channels, channels)
        self.to_kv = Linear(context_channels, 2 * channels)
        self.q_rms_norm = MultiHeadRMSNorm(channels // heads, heads) if qk_rms_norm else nn.Identity()
        self.k_rms_norm = MultiHeadRMSNorm(channels // heads, heads) if qk_rms_norm else nn.Identity()
        self.to_out = Linear(channels, channels)

    def key_value(self, context: torch.Tensor, single: bool = False) -> KeyValue:
        """Keys and values of context tokens `[Tk, C_ctx]`, one an item if `single`; nothing in them changes
        between steps.
        """
        projected = self.to_kv(context).unflatten(-1, (2, self.heads, -1))
        k, v = norm_rotate(projected, (gamma_of(self.k_rms_norm),), None)
        result = self.to_out(v.flatten(1)) if single else None
        # Contiguous, so that the interleaved projection can be freed and every step reads straight through.
        return KeyValue(k.contiguous(), v.contiguous(), result)

    def forward(
        self, x: torch.Tensor, layout: TokenLayout, context: KeyValue, context_layout: TokenLayout
    ) -> torch.Tensor:
        """`x [T, C]`; returns `[T, C]`, or `[B, C]` where each item's context is a single token."""
        if context.result is not None:
            return context.result
        projected = self.to_q(x).unflatten(-1, (1, self.heads, -1))
        (q,) = norm_rotate(projected, (gamma_of(self.q_rms_norm),), None)
        out: torch.Tensor = self.to_out(attention(q, context.k, context.v, layout, context_layout).flatten(1))
        return out
