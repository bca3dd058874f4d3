"""The two ceilings: a large bfloat16 matrix product and a large copy, on random data."""

from __future__ import annotations

import torch

from .session import Session, device_ms

SIDE = 8192
COPY_BYTES = 4 * 2**30


def run(bench: Session) -> None:
    a, b = torch.randn(2, SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    bench.limits.flops = 2 * SIDE**3 / (device_ms(lambda: a @ b) / 1e3)
    bench.add("matrix product 8192, bf16", bench.limits.flops / 1e12, "TFLOP/s")
    source = torch.randint(0, 255, (COPY_BYTES,), device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    bench.limits.bytes = 2 * COPY_BYTES / (device_ms(lambda: target.copy_(source)) / 1e3)
    bench.add("copy, read plus written", bench.limits.bytes / 1e9, "GB/s")
