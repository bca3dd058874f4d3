"""Which of torch's attention kernels is fastest at the flows' shapes, and what its first call costs."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .session import Session, device_ms, wall_ms

HEADS, DIM = 12, 128
SHAPES = {
    "self 4096": (1, 4096, 4096),
    "self 2 x 4096": (2, 4096, 4096),
    "self 3012": (1, 3012, 3012),
    "self 12044": (1, 12044, 12044),
    "cross 4096 x 1029": (1, 4096, 1029),
    "cross 12044 x 4101": (1, 12044, 4101),
}
KERNELS = {
    "torch's choice": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def run(bench: Session) -> None:
    for name, shape in SHAPES.items():
        for kernel, backend in KERNELS.items():
            bench.attempt(f"attention {name}, {kernel}", partial(_one, bench, name, shape, kernel, backend))


def _one(
    bench: Session, name: str, shape: tuple[int, int, int], kernel: str, backend: SDPBackend | None
) -> None:
    batch, queries, keys = shape
    # As the block has them: parts of one projection, heads behind tokens.
    projected = torch.randn(batch, queries, 3, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = projected.unbind(2)
    if keys != queries:
        k, v = torch.randn(2, batch, keys, HEADS, DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))

    def call() -> torch.Tensor:
        if backend is None:
            return F.scaled_dot_product_attention(q, k, v)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v)

    first = wall_ms(call)
    ms = device_ms(call)
    flops = 4.0 * batch * queries * keys * HEADS * DIM
    bench.add(
        f"attention {name}, {kernel}", ms, "ms", None, f"first {first:.0f} ms; {bench.share(ms, flops)}"
    )
