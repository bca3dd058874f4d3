"""Attention kernels at lengths drawn anew: what a length costs the first time, and again.

Run once more with TORCH_CUDNN_SDPA_AVOID_RECOMPILE=1 to see whether the rows "cudnn, contiguous" then plan by
power of two (torch reads the variable once a process, before its first call).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trellis2.nn.attention import bucket, padded_attention
from trellis2.nn.attention import cudnn_with_lse as cudnn

from .session import Session, device_ms, wall_ms

HEADS, DIM = 12, 128
SIZES = (2900, 5000, 12000, 17000, 27000, 45000)
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
TILINGS = ((128, 128, 8, 2), (128, 64, 8, 3), (128, 128, 8, 3))
# The same with the work divided evenly among so many programs a processor.
BALANCED = (((128, 64, 8, 3), 1), ((128, 128, 8, 2), 1), ((128, 64, 8, 4), 1), ((128, 32, 8, 4), 1))
CHECKED = 256  # queries whose results are compared with float32's


def run(bench: Session) -> None:
    draw = random.Random(os.urandom(8))
    for size in SIZES:
        lengths = [draw.randint(int(0.97 * size), int(1.03 * size)) for _ in range(3)]
        for name, keys in (("self", 0), ("cross", 1029 if size < 8000 else 4101)):
            for kernel, call in kernels().items():
                label = f"{name} {size}, {kernel}"
                bench.attempt(label, partial(_measure, bench, label, lengths, keys, call))


def kernels() -> dict[str, Attention]:
    """Attention of `[T, H, D]` by name."""
    known: dict[str, Attention] = {
        "flash": partial(_sdpa, SDPBackend.FLASH_ATTENTION),
        "cudnn": partial(_sdpa, SDPBackend.CUDNN_ATTENTION),
        "cudnn, contiguous": partial(_contiguous, SDPBackend.CUDNN_ATTENTION),
        "cudnn by bucket": lambda q, k, v: padded_attention(q, k, v, cudnn),
        "efficient": partial(_sdpa, SDPBackend.EFFICIENT_ATTENTION),
    }
    known |= {f"triton {tiling}": partial(_triton, tiling) for tiling in TILINGS}
    return known | {f"balanced {tiling} x {n}": partial(_balanced, tiling, n) for tiling, n in BALANCED}


def _sdpa(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)))
    return out[0].transpose(0, 1)


def _contiguous(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return _sdpa(backend, *(x.contiguous() for x in (q, k, v)))


def _triton(
    tiling: tuple[int, int, int, int], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    from trellis2.nn.attention_triton import Tiling, packed_attention

    return packed_attention(q, k, v, _bounds(len(q)), _bounds(len(k)), len(q), Tiling(*tiling))


def _balanced(
    tiling: tuple[int, int, int, int],
    programs: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
) -> torch.Tensor:
    from trellis2.nn.attention_balanced_triton import Tiling, balanced_attention

    count = programs * torch.cuda.get_device_properties(0).multi_processor_count
    bounds = _bounds(len(q)), _bounds(len(k))
    return balanced_attention(q, k, v, *bounds, Tiling(*tiling), count)


@cache
def _bounds(length: int) -> torch.Tensor:
    return torch.tensor([0, length], dtype=torch.int32, device="cuda")


def _measure(bench: Session, label: str, lengths: list[int], keys: int, call: Attention) -> None:
    first: list[float] = []
    for length in lengths:
        q, k, v = _inputs(length, keys)
        first.append(wall_ms(lambda q=q, k=k, v=v: call(q, k, v)))  # type: ignore[misc]
    ms = device_ms(lambda: call(q, k, v), 5, 2)
    exact = _sdpa(SDPBackend.MATH, q[:CHECKED].float(), k.float(), v.float())
    apart = float((call(q, k, v)[:CHECKED].float() - exact).norm() / exact.norm())
    flops = 4.0 * length * (keys or length) * HEADS * DIM
    costs = ", ".join(f"{x:.1f}" for x in first)
    lists = ", ".join(f"{n} ({bucket(n)})" for n in lengths)
    note = f"tokens (bucket) {lists}; first calls {costs} ms; from float32 {apart:.1e}"
    bench.add(f"attention {label}", ms, "ms", None, f"{note}; {bench.share(ms, flops)}")


def _inputs(length: int, keys: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the block has them: parts of one product for self-attention, keys and values apart for cross."""
    q, k, v = torch.randn(length, 3, HEADS, DIM, device="cuda", dtype=torch.bfloat16).unbind(1)
    if keys:
        k, v = torch.randn(2, keys, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    return q, k, v
