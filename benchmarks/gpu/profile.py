"""Where the device's time goes: the largest kernels of a forward pass and of a decode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from .networks import network
from .session import Session
from .voxels import pyramid

SHOWN = 14


@torch.no_grad()
def run(bench: Session) -> None:
    shape = pyramid(1024)
    bench.attempt("profile flow 512", partial(_flow, bench, pyramid(512), 1029))
    bench.attempt("profile flow 1024", partial(_flow, bench, shape, 4101))
    bench.attempt("profile decode", partial(_decode, bench, shape))


def _flow(bench: Session, shape: Any, length: int) -> None:
    model = network("shape flow")
    t = torch.full((1,), 500.0, device="cuda")
    context = model.prepare_cond(torch.randn(1, length, 1024, device="cuda"))
    x = shape.latent(32)
    _kernels(bench, f"forward {shape.tokens} tokens", lambda: model(x, t, context))


def _decode(bench: Session, shape: Any) -> None:
    decoder = network("texture decoder")
    guides = shape.guides()
    _kernels(
        bench, f"texture decode {shape.voxels} voxels", lambda: decoder(shape.latent(32), guide_subs=guides)
    )


def _kernels(bench: Session, name: str, call: Callable[[], Any]) -> None:
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        call()
        torch.cuda.synchronize()
    total: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for event in record.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            total[event.name] += event.device_time / 1e3
            count[event.name] += 1
    busy = sum(total.values())
    largest = sorted(total, key=lambda key: -total[key])
    bench.detail[f"profile {name}"] = {key: [round(total[key], 4), count[key]] for key in largest}
    bench.add(f"profile {name}: device busy", busy, "ms", None, f"{sum(count.values())} kernels")
    for key in largest[:SHOWN]:
        short = " ".join(key.replace("void ", "").split())[:46]
        bench.add(f"  {short}", total[key], "ms", None, f"{total[key] / busy:.1%}, {count[key]} launches")
