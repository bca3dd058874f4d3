"""The two ceilings: a large bfloat16 matrix product and a large copy, on random data; and what is left of the
first when it lasts, as a sampling run does.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch

from .session import Session, SkippedError, device_ms

SIDE = 8192
COPY_BYTES = 4 * 2**30
HELD_SECONDS = 1.5


def run(bench: Session) -> None:
    a, b = torch.randn(2, SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    once = device_ms(lambda: a @ b)
    bench.limits.flops = 2 * SIDE**3 / (once / 1e3)
    bench.add("matrix product 8192, bf16", bench.limits.flops / 1e12, "TFLOP/s")
    bench.attempt("held", partial(_held, bench, a, b, round(1e3 * HELD_SECONDS / once)))
    source = torch.randint(0, 255, (COPY_BYTES,), device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    bench.limits.bytes = 2 * COPY_BYTES / (device_ms(lambda: target.copy_(source)) / 1e3)
    bench.add("copy, read plus written", bench.limits.bytes / 1e9, "GB/s")


def _held(bench: Session, a: torch.Tensor, b: torch.Tensor, repeats: int) -> None:
    """The same product for a second and a half: rate, clock and power over its second half."""
    try:
        torch.cuda.clock_rate()
    except (ModuleNotFoundError, RuntimeError) as error:
        raise SkippedError(f"clock and power cannot be read: {error!r}") from error
    half, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for i in range(repeats):
        if i == repeats // 2:
            half.record()
        torch.mm(a, b)
    end.record()
    half.synchronize()
    seen = []
    while not end.query():
        seen.append((torch.cuda.clock_rate(), torch.cuda.power_draw() / 1e3))
        time.sleep(0.02)
    clock, watts = (statistics.median(x) for x in zip(*seen, strict=True))
    flops = 2 * SIDE**3 * (repeats - repeats // 2) / (half.elapsed_time(end) / 1e3)
    note = f"after {HELD_SECONDS / 2:g} s; {clock:.0f} MHz, {watts:.0f} W"
    bench.add("matrix product 8192, bf16, held", flops / 1e12, "TFLOP/s", None, note)
