"""The element-wise work between matrix products: residuals, norms, modulation, rotation.

Each function is its torch formula, and hands over to the fused kernels of `elementwise_triton` where
`trellis2.backends` picks them: on CUDA, when no gradient is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..backends import elementwise_backend
from .precision import QuantizedRows, autocasting
from .rope import apply_rope
from .tokens import TokenLayout


@dataclass(frozen=True)
class Modulation:
    """What a modulated norm adds and multiplies by, `[B, C]` each: norm(x) * (1 + scale) + shift."""

    shift: torch.Tensor
    scale: torch.Tensor


@dataclass(frozen=True)
class Affine:
    """Weight and bias `[C]` of a norm, float32; None where it has none."""

    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None


def _fused(x: torch.Tensor) -> Any:
    """The module with the kernels when it serves this tensor, else None."""
    if not x.is_cuda or torch.is_grad_enabled() or autocasting(x):
        return None
    if elementwise_backend(x.device, x.dtype).backend != "triton":
        return None
    return importlib.import_module("trellis2.nn.elementwise_triton")


def layer_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    silu: bool = False,
) -> torch.Tensor:
    """Layer norm over the last axis in float32, cast back to the incoming dtype (left float32 under
    autocast); then SiLU if asked.
    """
    fused = _fused(x) if x.ndim == 2 and x.dtype != torch.float32 else None
    if fused is not None:
        result: torch.Tensor = fused.residual_norm(x, weight=weight, bias=bias, eps=eps, silu=silu)[1]
        return result
    out = F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps)
    out = out if autocasting(x) else out.to(x.dtype)
    return F.silu(out) if silu else out


def gated_add(
    x: torch.Tensor, branch: torch.Tensor, gate: torch.Tensor | None, layout: TokenLayout
) -> torch.Tensor:
    """`x + gate * branch` for tokens `[T, C]` and a gate `[B, C]`; a branch `[B, C]` serves all tokens of its
    item.
    """
    fused = _fused(x)
    if fused is not None:
        total: torch.Tensor = fused.residual_norm(
            x, branch, gate, branch_per_item=_per_item(branch, x), norm=False, **_rows(layout)
        )[0]
        return total
    grouped = layout.group(x)
    added = layout.broadcast_per_item(branch) if _per_item(branch, x) else branch.view_as(grouped)
    return (grouped + (added if gate is None else layout.broadcast_per_item(gate) * added)).flatten(0, 1)


def norm(
    x: torch.Tensor, how: Modulation | Affine, layout: TokenLayout, eps: float, quantize: bool = False
) -> torch.Tensor | QuantizedRows:
    """The modulated or affine layer norm of tokens `[T, C]`; where a kernel makes it, in 8 bits if asked."""
    fused = _fused(x)
    if fused is not None:
        out: torch.Tensor | QuantizedRows = fused.residual_norm(
            x, eps=eps, quantize=quantize, **_norm_arguments(how), **_rows(layout)
        )[1]
        return out
    if isinstance(how, Affine):
        return layer_norm(x, how.weight, how.bias, eps)
    # `1 + scale`, the product and the sum are rounded one by one, as published.
    h = layout.group(layer_norm(x, eps=eps))
    return (h * (1 + layout.broadcast_per_item(how.scale)) + layout.broadcast_per_item(how.shift)).flatten(
        0, 1
    )


def add_norm(
    x: torch.Tensor,
    branch: torch.Tensor,
    gate: torch.Tensor | None,
    how: Modulation | Affine,
    layout: TokenLayout,
    eps: float,
    quantize: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | QuantizedRows]:
    """`gated_add`, and the `norm` of its result, in one pass."""
    fused = _fused(x)
    if fused is None:
        x = gated_add(x, branch, gate, layout)
        return x, norm(x, how, layout, eps)
    both: tuple[torch.Tensor, torch.Tensor | QuantizedRows] = fused.residual_norm(
        x,
        branch,
        gate,
        branch_per_item=_per_item(branch, x),
        eps=eps,
        quantize=quantize,
        **_norm_arguments(how),
        **_rows(layout),
    )
    return both


def _per_item(branch: torch.Tensor, x: torch.Tensor) -> bool:
    return branch.shape[0] != x.shape[0]


def _norm_arguments(how: Modulation | Affine) -> dict[str, torch.Tensor | None]:
    if isinstance(how, Modulation):
        return {"shift": how.shift, "scale": how.scale}
    return {"weight": how.weight, "bias": how.bias}


def _rows(layout: TokenLayout) -> dict[str, Any]:
    return {"length": layout.lengths[0]} if layout.uniform else {"items": layout.items}


def rms_norm(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """Each head's vector `[..., H, D]` at length one, times `gamma * sqrt(D)`, in float32, cast back."""
    return (F.normalize(x.float(), dim=-1, eps=1e-12) * gamma * x.shape[-1] ** 0.5).to(x.dtype)


def norm_rotate(
    projected: torch.Tensor, gammas: Sequence[torch.Tensor | None], phases: torch.Tensor | None
) -> tuple[torch.Tensor, ...]:
    """The parts `[T, H, D]` of a projection `[T, P, H, D]`; the first `len(gammas)` of them RMS-normalised by
    their gamma `[H, D]` (None: not) and rotated by `phases [T, D/2]` (None: not).

    The projection itself may be overwritten.
    """
    normed = [gamma for gamma in gammas if gamma is not None]
    dim = projected.shape[-1]
    fused = _fused(projected) if dim & (dim - 1) == 0 and dim >= 16 else None
    if fused is not None and len(normed) in (0, len(gammas)):
        if normed or phases is not None:
            fused.norm_rotate_(projected, len(gammas), normed, phases)
        return projected.unbind(1)
    parts = list(projected.unbind(1))
    for i, gamma in enumerate(gammas):
        part = parts[i] if gamma is None else rms_norm(parts[i], gamma)
        parts[i] = part if phases is None else apply_rope(part, phases)
    return tuple(parts)


def linear_gelu(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """GELU (tanh approximation) of a linear layer; on CUDA in the product's epilogue, before any rounding."""
    if x.dtype != torch.float32 and hasattr(torch, "_addmm_activation") and _fused(x) is not None:
        return torch._addmm_activation(linear.bias, x, linear.weight.t(), use_gelu=True)
    return F.gelu(linear(x), approximate="tanh")
