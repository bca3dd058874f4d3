"""One forward pass of the flows: plain torch, fused, as sampling runs it; guidance in one pass or in two."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from trellis2.models import RecordedFlow
from trellis2.sparse import SparseTensor, sparse_cat

from .networks import flow_flops, network
from .session import Session, device_ms, peak_gb, plain_torch, rested_ms, wall_ms
from .voxels import TOKENS, pyramid, surface_cells

# Tokens, image tokens, the most milliseconds the issue allows.
TARGETS = {"structure": 25.0, "512": 18.0, "1024": 105.0}


@torch.no_grad()
def run(bench: Session) -> None:
    model = network("structure flow")
    x = torch.randn(1, 8, 16, 16, 16, device="cuda")
    bench.attempt("structure forward", partial(_forwards, bench, model, "structure", x, 4096, 1029))
    del model
    model = network("shape flow")
    for name, context in (("512", 1029), ("1024", 4101)):
        x = pyramid(int(name)).latent(32, TOKENS[int(name)])
        bench.attempt(f"{name} forward", partial(_forwards, bench, model, name, x, len(x.feats), context))
    bench.attempt("1536 forward", partial(_largest, bench, model))


def _forwards(bench: Session, model: Any, name: str, x: Any, tokens: int, length: int) -> None:
    t = torch.full((1,), 500.0, device="cuda")
    image = torch.randn(1, length, 1024, device="cuda")
    context = model.prepare_cond(image)
    flops = flow_flops(model, tokens, length)
    label = f"{name} forward, {tokens} tokens x {length}"

    with plain_torch():
        plain = device_ms(lambda: model(x, t, context), 5, 2)
    first = wall_ms(lambda: model(x, t, context))
    fused = device_ms(lambda: model(x, t, context))
    launches = _launch_ms(lambda: model(x, t, context))
    peak = peak_gb(lambda: model(x, t, context))
    recorded = RecordedFlow(model)
    own = recorded.prepare_cond(image)
    record = wall_ms(lambda: recorded(x, t, own))
    step = device_ms(lambda: recorded(x, t, own))
    rested = rested_ms(lambda: recorded(x, t, own), partial(device_ms, repeats=1, warmup=0))
    unprepared = device_ms(lambda: model(x, t, image))

    bench.add(f"{label}: torch formulas", plain, "ms", None, bench.share(plain, flops))
    costs = f"first {first:.0f} ms, processor {launches:.0f} ms; peak {peak:.1f} GB"
    note = f"{bench.share(fused, flops)}; {costs}"
    bench.add(f"{label}: fused", fused, "ms", None, note)
    note = f"{bench.share(step, flops)}; first {record:.0f} ms; one after a rest {rested:.1f} ms"
    bench.add(f"{label}: in sampling", step, "ms", TARGETS[name], note)
    bench.add(f"{label}: without prepare_cond", unprepared, "ms", None, "one call, nothing made before")

    nothing = recorded.prepare_cond(torch.zeros(1, 1, 1024, device="cuda"))
    alone = device_ms(lambda: recorded(x, t, nothing))
    note = bench.share(alone, flow_flops(model, tokens, 1))
    bench.add(f"{label}: null condition", alone, "ms", None, note)
    both = recorded.prepare_cond([image[0], torch.zeros(1, 1024, device="cuda")])
    double = sparse_cat([x, x]) if isinstance(x, SparseTensor) else torch.cat([x, x])
    together = device_ms(lambda: recorded(double, t.repeat(2), both))
    note = f"two passes {step + alone:.1f} ms; " + bench.share(together, flops + flow_flops(model, tokens, 1))
    bench.add(f"{label}: both branches at once", together, "ms", None, note)


def _launch_ms(call: Any) -> float:
    """How long the processor is busy with a call, the device left behind."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    seconds = time.perf_counter() - started
    torch.cuda.synchronize()
    return 1e3 * seconds


def _largest(bench: Session, model: Any) -> None:
    cells = surface_cells(96)
    x = SparseTensor(
        torch.randn(len(cells), 32, device="cuda"),
        torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1),
        1,
    )
    t = torch.full((1,), 500.0, device="cuda")
    context = model.prepare_cond(torch.randn(1, 4101, 1024, device="cuda"))
    ms = device_ms(lambda: model(x, t, context), 5, 1)
    peak = peak_gb(lambda: model(x, t, context))
    note = f"{bench.share(ms, flow_flops(model, len(cells), 4101))}; peak {peak:.1f} GB"
    bench.add(f"1536 forward, {len(cells)} tokens x 4101", ms, "ms", None, note)
