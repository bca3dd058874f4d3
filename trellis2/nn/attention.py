"""The one attention call: softmax(q k^T / sqrt(D)) v inside each sequence of a token list."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..backends import attention_backend
from ..errors import InvalidArgumentError
from .elementwise import norm_rotate
from .layers import Linear, MultiHeadRMSNorm
from .precision import QuantizedRows, autocasting
from .tokens import TokenLayout

# Queries, keys and values `[B, H, T, D]` to the output and the log of the sum of exponentials `[B, H, Tq]`.
AttentionWithLse = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

PLAN_FREE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
CUDNN_FIRST = [SDPBackend.CUDNN_ATTENTION, *PLAN_FREE]


def attention_kernels(x: torch.Tensor, layout: TokenLayout) -> AbstractContextManager[Any]:
    """Inside it torch's attention of queries like `x` takes cuDNN's kernel where that is chosen, and never
    elsewhere: left alone, torch takes it first on Hopper, and plans every new length.

    Entering it costs as much as a launch: hold it around many calls.
    """
    if not x.is_cuda:
        return nullcontext()
    cudnn = _choice(x, layout) in ("cudnn", "cudnn_padded")
    return sdpa_kernel(CUDNN_FIRST if cudnn else PLAN_FREE, set_priority=True)


def _choice(x: torch.Tensor, queries: TokenLayout) -> str:
    grad = torch.is_grad_enabled()
    return attention_backend(x.device, _dtype(x), grad, queries.longest, queries.recurring).backend


def _dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype in which attention takes a tensor."""
    return torch.get_autocast_dtype(x.device.type) if autocasting(x) else x.dtype


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: TokenLayout,
    keys: TokenLayout,
) -> torch.Tensor:
    """Attention of `q [Tq, H, D]` over `k, v [Tk, H, D]`; sequence i of `queries` sees only sequence i of
    `keys`.

    No mask, no dropout, scale 1/sqrt(D); which of its kernels torch prefers is up to `attention_kernels`.
    Returns `[Tq, H, D]`. Raises InvalidArgumentError when the batches differ.
    """
    if queries.batch_size != keys.batch_size:
        raise InvalidArgumentError(
            f"{queries.batch_size} sequences attend to {keys.batch_size} contexts; give one context an item"
        )
    if autocasting(q):
        q, k, v = (x.to(_dtype(x)) for x in (q, k, v))
    choice = _choice(q, queries)
    if choice == "flash_attn":
        return _flash(q, k, v, queries, keys)
    if choice in ("triton", "triton_balanced") and q.shape[-1] in (16, 32, 64, 128):
        return _packed(choice, q, k, v, queries, keys)
    if choice == "cudnn_padded" and queries.batch_size == 1 and keys.longest > 1:
        return padded_attention(q, k, v, cudnn_with_lse)
    if queries.uniform and keys.uniform:
        b, (_, h, d) = queries.batch_size, q.shape
        q, k, v = (x.view(b, len(x) // b, h, d).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    items = zip(*(x.split(n.lengths) for x, n in ((q, queries), (k, keys), (v, keys))), strict=True)
    batches = ([x.transpose(0, 1)[None] for x in item] for item in items)
    parts = [F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1) for q, k, v in batches]
    return torch.cat(parts)


def bucket(length: int) -> int:
    """The next length of a series with 16 steps an octave, each a multiple of 64."""
    step = max(64, (1 << max(length - 1, 1).bit_length()) // 32)
    return -(-length // step) * step


def padded_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: AttentionWithLse
) -> torch.Tensor:
    """Exact attention of `q [Tq, H, D]` over `k, v [Tk, H, D]` by a kernel that only sees bucket lengths.

    A key of zeros adds exp(0) = 1 to the softmax's denominator and nothing to its numerator, so n of them are
    undone by dividing by 1 - n exp(-lse).
    """
    queries, padding = len(q), bucket(len(k)) - len(k)
    q, k, v = (F.pad(x, (0, 0, 0, 0, 0, bucket(len(x)) - len(x))) for x in (q, k, v))
    out, lse = kernel(*(x.transpose(0, 1)[None] for x in (q, k, v)))
    out = out[0].transpose(0, 1)[:queries]
    share = 1 - padding * torch.exp(-lse.float().reshape(q.shape[1], -1).T[:queries, :, None])  # of true keys
    return torch.div(out, share, out=torch.empty_like(out))  # in float32, rounded once


def _packed(
    kind: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: TokenLayout,
    keys: TokenLayout,
) -> torch.Tensor:
    """By our kernels, which take packed sequences of any lengths."""
    bounds = queries.boundaries, keys.boundaries
    if kind == "triton_balanced":
        balanced = importlib.import_module("trellis2.nn.attention_balanced_triton")
        out: torch.Tensor = balanced.balanced_attention(q, k, v, *bounds)
        return out
    kernels = importlib.import_module("trellis2.nn.attention_triton")
    out = kernels.packed_attention(q, k, v, *bounds, queries.longest)
    return out


def cudnn_with_lse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    return out, lse


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, queries: TokenLayout, keys: TokenLayout
) -> torch.Tensor:
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    if queries.uniform and keys.uniform:
        b = queries.batch_size
        out: torch.Tensor = flash_attn_func(*(x.unflatten(0, (b, -1)) for x in (q, k, v)))
        return out.flatten(0, 1)
    out = flash_attn_varlen_func(q, k, v, queries.boundaries, keys.boundaries, queries.longest, keys.longest)
    return out


def _by_head(projected: torch.Tensor, parts: int, heads: int) -> torch.Tensor:
    """A projection `[T, P * H * D]` as `[T, P, H, D]`; `unflatten`, at a third of its cost."""
    tokens, channels = projected.shape
    return projected.view(tokens, parts, heads, channels // (parts * heads))


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

    @property
    def entrance(self) -> nn.Module:
        """The layer that takes the tokens."""
        return self.to_qkv

    def forward(
        self, x: torch.Tensor | QuantizedRows, layout: TokenLayout, phases: torch.Tensor | None
    ) -> torch.Tensor:
        """`x [T, C]`, `phases [T, D/2]` complex or None; returns `[T, C]`."""
        projected = _by_head(self.to_qkv(x), 3, self.heads)
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

    @property
    def entrance(self) -> nn.Module:
        """The layer that takes the tokens."""
        return self.to_q

    def key_value(self, context: torch.Tensor, single: bool = False) -> KeyValue:
        """Keys and values of context tokens `[Tk, C_ctx]`, one an item if `single`; nothing in them changes
        between steps.
        """
        projected = _by_head(self.to_kv(context), 2, self.heads)
        k, v = norm_rotate(projected, (gamma_of(self.k_rms_norm),), None)
        result = self.to_out(v.flatten(1)) if single else None
        # Apart, so that the interleaved projection can be freed and every step reads straight through.
        k, v = torch.stack((k, v)).unbind()
        return KeyValue(k, v, result)

    def forward(
        self,
        x: torch.Tensor | QuantizedRows,
        layout: TokenLayout,
        context: KeyValue,
        context_layout: TokenLayout,
        features: None = None,
    ) -> torch.Tensor:
        """`x [T, C]`; returns `[T, C]`."""
        projected = _by_head(self.to_q(x), 1, self.heads)
        (q,) = norm_rotate(projected, (gamma_of(self.q_rms_norm),), None)
        out: torch.Tensor = self.to_out(attention(q, context.k, context.v, layout, context_layout).flatten(1))
        return out


class PixelCrossAttention(nn.Module):
    """Attention over a few global tokens, and to each token a projection of its own feature.

    The projection has no norm, gate or modulation, and nothing of x in it. Source: Pixal3D (Li et al.,
    SIGGRAPH 2026).
    """

    def __init__(
        self, channels: int, context_channels: int, heads: int, qk_rms_norm: bool, feature_channels: int
    ) -> None:
        super().__init__()
        self.cross_attn_block = CrossAttention(channels, context_channels, heads, qk_rms_norm)
        self.proj_linear = Linear(feature_channels, channels)

    @property
    def entrance(self) -> nn.Module:
        """The layer that takes the tokens."""
        return self.cross_attn_block.entrance

    def key_value(self, context: torch.Tensor, single: bool = False) -> KeyValue:
        """As `CrossAttention.key_value`; with `single`, which is for no features, the result has the bias."""
        made = self.cross_attn_block.key_value(context, single)
        if made.result is None:
            return made
        return replace(made, result=made.result + self._bias(made.result))

    def forward(
        self,
        x: torch.Tensor | QuantizedRows,
        layout: TokenLayout,
        context: KeyValue,
        context_layout: TokenLayout,
        features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`x [T, C]`, `features [T, P]` (None: zeros); returns `[T, C]`."""
        cross: torch.Tensor = self.cross_attn_block(x, layout, context, context_layout)
        return cross + (self._bias(cross) if features is None else self.proj_linear(features))

    def _bias(self, like: torch.Tensor) -> torch.Tensor:
        """What the projection makes of zeros."""
        return self.proj_linear.bias.to(like.dtype)
