"""The parts of a transformer block: matrix products, and element-wise work fused and by torch."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from trellis2.nn import elementwise
from trellis2.nn.elementwise import Affine, Modulation
from trellis2.nn.layers import Linear
from trellis2.nn.rope import rope_phases
from trellis2.nn.tokens import TokenLayout

from .session import Session, device_ms, plain_torch, wall_ms

CHANNELS, HIDDEN, HEADS = 1536, 8192, 12


@torch.no_grad()
def run(bench: Session) -> None:
    for tokens in (4096, 12044):
        bench.attempt(f"products {tokens}", partial(_products, bench, tokens))
    bench.attempt("element-wise", partial(_elementwise, bench, 12044))


def _products(bench: Session, tokens: int) -> None:
    x = torch.randn(tokens, CHANNELS, device="cuda", dtype=torch.bfloat16)
    up = Linear(CHANNELS, HIDDEN, device="cuda", dtype=torch.bfloat16)
    down = Linear(HIDDEN, CHANNELS, device="cuda", dtype=torch.bfloat16)
    qkv = Linear(CHANNELS, 3 * CHANNELS, device="cuda", dtype=torch.bfloat16)
    out = Linear(CHANNELS, CHANNELS, device="cuda", dtype=torch.bfloat16)
    wide = torch.randn(tokens, HIDDEN, device="cuda", dtype=torch.bfloat16)
    calls = {
        "qkv": (lambda: qkv(x), 3 * CHANNELS**2),
        "out": (lambda: out(x), CHANNELS**2),
        "MLP up": (lambda: up(x), CHANNELS * HIDDEN),
        "MLP up, then GELU": (lambda: F.gelu(up(x), approximate="tanh"), CHANNELS * HIDDEN),
        "MLP up with GELU in it": (lambda: elementwise.linear_gelu(up, x), CHANNELS * HIDDEN),
        "MLP down": (lambda: down(wide), CHANNELS * HIDDEN),
    }
    for name, (call, size) in calls.items():
        ms = device_ms(call)
        bench.add(f"{name}, {tokens} tokens", ms, "ms", None, bench.share(ms, 2.0 * tokens * size))


def _elementwise(bench: Session, tokens: int) -> None:
    x, branch = torch.randn(2, tokens, CHANNELS, device="cuda", dtype=torch.bfloat16)
    gate, shift, scale = torch.randn(1, 3 * CHANNELS, device="cuda", dtype=torch.bfloat16).chunk(3, dim=-1)
    weight, bias = torch.randn(2, CHANNELS, device="cuda")
    gammas = list(torch.randn(2, HEADS, CHANNELS // HEADS, device="cuda"))
    projected = torch.randn(tokens, 3, HEADS, CHANNELS // HEADS, device="cuda", dtype=torch.bfloat16)
    phases = rope_phases(torch.randint(0, 64, (tokens, 3), device="cuda"), CHANNELS // HEADS)
    layout = TokenLayout.of([tokens], "cuda")
    size = tokens * CHANNELS * 2
    calls = {
        "norm, modulate": (lambda: elementwise.norm(x, Modulation(shift, scale), layout, 1e-6), 2),
        "add, norm": (
            lambda: elementwise.add_norm(x, branch, gate, Affine(weight, bias), layout, 1e-6),
            4,
        ),
        "gated add": (lambda: elementwise.gated_add(x, branch, gate, layout), 3),
        "QK norm, rotate": (lambda: elementwise.norm_rotate(projected, gammas, phases), 4),
    }
    for name, (call, passes) in calls.items():
        first = wall_ms(call)
        fused = device_ms(call)
        with plain_torch():
            plain = device_ms(call)
        note = f"torch {plain:.3g} ms; first {first:.0f} ms; {bench.share(fused, bytes=passes * size)}"
        bench.add(f"{name}, {tokens} tokens", fused, "ms", None, note)
