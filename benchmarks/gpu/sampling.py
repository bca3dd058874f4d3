"""Whole sampling runs with the published default parameters, and what recording and fusing change in them."""

from __future__ import annotations

import copy
import statistics
from functools import partial
from typing import Any

import torch

from trellis2.samplers import FlowEulerGuidanceIntervalSampler
from trellis2.sparse import SparseTensor

from .networks import network
from .session import Session, peak_gb, plain_torch, wall_ms
from .voxels import TOKENS, pyramid

STRUCTURE = {
    "steps": 12,
    "guidance_strength": 7.5,
    "guidance_rescale": 0.7,
    "guidance_interval": (0.6, 1.0),
    "rescale_t": 5.0,
}
SHAPE = {**STRUCTURE, "guidance_rescale": 0.5, "rescale_t": 3.0}
TEXTURE = {
    "steps": 12,
    "guidance_strength": 1.0,
    "guidance_rescale": 0.0,
    "guidance_interval": (0.6, 0.9),
    "rescale_t": 3.0,
}


@torch.no_grad()
def run(bench: Session) -> None:
    seconds: dict[str, float] = {}
    shapes = {resolution: pyramid(resolution) for resolution in (512, 1024)}
    image = {length: torch.randn(1, length, 1024, device="cuda") for length in (1029, 4101)}

    flow = network("structure flow")
    noise = torch.randn(1, 8, 16, 16, 16, device="cuda")
    measure = partial(_sample, bench, seconds)
    bench.attempt("structure", partial(measure, "structure", flow, noise, image[1029], STRUCTURE))
    bench.attempt("guidance", partial(_guidance, bench, "structure", flow, noise, image[1029], STRUCTURE))
    bench.attempt("agreement bf16", partial(_agreement, bench, flow, noise, image[1029], STRUCTURE, 2e-2))
    del flow
    flow = network("shape flow")
    for resolution, length in ((512, 1029), (1024, 4101)):
        noise = shapes[resolution].latent(32, TOKENS[resolution])
        name = f"shape {resolution}"
        bench.attempt(name, partial(measure, name, flow, noise, image[length], SHAPE))
        if resolution == 512:
            bench.attempt("guidance", partial(_guidance, bench, name, flow, noise, image[length], SHAPE))
    del flow
    flow = network("texture flow")
    for resolution, length in ((512, 1029), (1024, 4101)):
        noise = shapes[resolution].latent(32, TOKENS[resolution])
        extra = {"concat_cond": noise.replace(torch.randn_like(noise.feats))}
        name = f"texture {resolution}"
        bench.attempt(name, partial(measure, name, flow, noise, image[length], TEXTURE, **extra))
    del flow
    low = ("structure", "shape 512", "texture 512")
    high = ("structure", "shape 512", "shape 1024", "texture 1024")
    for name, stages, target in (("512", low, 1.1), ("1024 cascade", high, 4.0)):
        if all(stage in seconds for stage in stages):
            total = sum(seconds[stage] for stage in stages)
            bench.add(f"all flows of {name}", total, "s", target, " + ".join(stages))
    flow = network("shape flow", torch.float32)
    noise = pyramid(256).latent(32)
    bench.attempt("agreement fp32", partial(_agreement, bench, flow, noise, image[1029], SHAPE, 1e-3))


def _run(
    flow: Any, noise: Any, cond: torch.Tensor, params: Any, batched: bool | None = None, **extra: Any
) -> torch.Tensor:
    sampler = FlowEulerGuidanceIntervalSampler(1e-5, batched_guidance=batched)
    result = sampler.sample(flow, noise, cond, torch.zeros_like(cond), **params, **extra).samples
    values: torch.Tensor = result.feats if isinstance(result, SparseTensor) else result
    return values


def _sample(
    bench: Session,
    seconds: dict[str, float],
    name: str,
    flow: Any,
    noise: Any,
    cond: torch.Tensor,
    params: Any,
    **extra: Any,
) -> None:
    first = wall_ms(lambda: _run(flow, noise, cond, params, **extra))
    times = [wall_ms(lambda: _run(flow, noise, cond, params, **extra)) for _ in range(5)]
    seconds[name] = statistics.median(times) / 1e3
    flow.cuda_graphs = False
    direct = wall_ms(lambda: _run(flow, noise, cond, params, **extra))
    flow.cuda_graphs = True
    peak = peak_gb(lambda: _run(flow, noise, cond, params, **extra))
    reserved = torch.cuda.max_memory_reserved() / 1e9
    note = (
        f"first {first / 1e3:.2f} s, not recorded {direct / 1e3:.3f} s; "
        f"peak {peak:.1f} GB, reserved {reserved:.1f} GB"
    )
    bench.add(f"sampling {name}", seconds[name], "s", None, note)


def _guidance(bench: Session, name: str, flow: Any, noise: Any, cond: torch.Tensor, params: Any) -> None:
    found = {}
    for batched in (True, False):
        wall_ms(lambda b=batched: _run(flow, noise, cond, params, b))
        found[batched] = min(wall_ms(lambda b=batched: _run(flow, noise, cond, params, b)) for _ in range(2))
    note = f"two passes {found[False] / 1e3:.3f} s"
    bench.add(f"sampling {name}, both branches in one pass", found[True] / 1e3, "s", None, note)


def _agreement(bench: Session, flow: Any, noise: Any, cond: torch.Tensor, params: Any, limit: float) -> None:
    """Relative L2 distance of a whole run, recorded and fused, from the same run by torch's formulas."""
    ours = _run(flow, noise, cond, params)
    flow.cuda_graphs = False
    unrecorded = _run(flow, noise, cond, params)
    with plain_torch():
        plain = _run(flow, noise, cond, params)
    flow.cuda_graphs = True

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / plain.norm())

    distance = apart(ours, plain)
    dtype = str(flow.dtype).removeprefix("torch.")
    note = f"recording alone {apart(ours, unrecorded):.2g}; result's deviation {float(plain.std()):.2g}"
    if flow.dtype != torch.float32:
        exact = _run(copy.deepcopy(flow).convert_to(torch.float32), noise, cond, params)
        note += f"; from float32: fused {apart(ours, exact):.2g}, torch {apart(plain, exact):.2g}"
    bench.add(f"sampling, fused against torch, {dtype}: relative L2", distance, "", limit, note)
