"""Whole sampling runs with the published default parameters, and what recording and fusing change in them."""

from __future__ import annotations

import copy
import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from trellis2.models import RecordedFlow
from trellis2.samplers import FlowEulerGuidanceIntervalSampler
from trellis2.sparse import SparseTensor

from .networks import network
from .session import Session, peak_gb, plain_torch, rested_ms, unrecorded, wall_ms
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
DRAWS = 3  # of noise, in a comparison


@torch.no_grad()
def run(bench: Session) -> None:
    image = {length: torch.randn(1, length, 1024, device="cuda") for length in (1029, 4101)}
    _published(bench, image)
    flow = RecordedFlow(network("shape flow", torch.float32))
    noise = pyramid(256).latent(32)
    bench.attempt("agreement fp32", partial(_agreement, bench, flow, noise, image[1029], SHAPE, 1e-3))


def _published(bench: Session, image: dict[int, torch.Tensor]) -> None:
    """All of the flows in their published dtype, held at once."""
    shapes = {size: pyramid(size).latent(32, TOKENS[size]) for size in (512, 1024)}
    flows = {stage: RecordedFlow(network(f"{stage} flow")) for stage in ("structure", "shape", "texture")}
    dense = torch.randn(1, 8, 16, 16, 16, device="cuda")
    parts: dict[str, Callable[[], torch.Tensor]] = {
        "structure": partial(denoised, flows["structure"], dense, image[1029], STRUCTURE)
    }
    for size, length in ((512, 1029), (1024, 4101)):
        noise = shapes[size]
        known = noise.replace(torch.randn_like(noise.feats))
        parts[f"shape {size}"] = partial(denoised, flows["shape"], noise, image[length], SHAPE)
        parts[f"texture {size}"] = partial(
            denoised, flows["texture"], noise, image[length], TEXTURE, concat_cond=known
        )
    for name, call in parts.items():
        bench.attempt(name, partial(_sample, bench, name, call))
    low = ("structure", "shape 512", "texture 512")
    high = ("structure", "shape 512", "shape 1024", "texture 1024")
    for name, stages, target in (("512", low, 1.1), ("1024 cascade", high, 4.0)):
        calls = [parts[s] for s in stages]
        bench.attempt(name, partial(_whole, bench, name, " + ".join(stages), calls, target))
    for stage, noise, params in (("structure", dense, STRUCTURE), ("shape", shapes[512], SHAPE)):
        bench.attempt("guidance", partial(_guidance, bench, stage, flows[stage], noise, image[1029], params))
    flow = flows["structure"]
    bench.attempt("agreement bf16", partial(_agreement, bench, flow, dense, image[1029], STRUCTURE, 2e-2))


def denoised(
    flow: Any, noise: Any, cond: torch.Tensor, params: Any, batched: bool | None = None, **extra: Any
) -> torch.Tensor:
    sampler = FlowEulerGuidanceIntervalSampler(1e-5, batched_guidance=batched)
    # As the pipeline has it: whether the result is finite is seen once everything is launched.
    result = sampler.denoise(flow, noise, cond, neg_cond=torch.zeros_like(cond), **params, **extra)
    values: torch.Tensor = result.feats if isinstance(result, SparseTensor) else result
    return values


def _sample(bench: Session, name: str, call: Callable[[], torch.Tensor]) -> None:
    first = wall_ms(call)
    seconds = statistics.median(wall_ms(call) for _ in range(5)) / 1e3
    with unrecorded():
        direct = wall_ms(call)
    peak = peak_gb(call)
    reserved = torch.cuda.max_memory_reserved() / 1e9
    note = (
        f"first {first / 1e3:.2f} s, not recorded {direct / 1e3:.3f} s; "
        f"peak {peak:.1f} GB, reserved {reserved:.1f} GB"
    )
    bench.add(f"sampling {name}", seconds, "s", None, note)


def _whole(
    bench: Session, name: str, stages: str, calls: list[Callable[[], torch.Tensor]], target: float
) -> None:
    """All flows of an object, one object after the other, and one after a rest."""

    def call() -> None:
        for stage in calls:
            stage()

    times = [wall_ms(call) / 1e3 for _ in range(5)]
    rested = rested_ms(call, wall_ms) / 1e3
    note = f"{stages}; {min(times):.3f} to {max(times):.3f} s, after a rest {rested:.3f} s"
    bench.add(f"all flows of {name}", statistics.median(times), "s", target, note)


def _guidance(bench: Session, name: str, flow: Any, noise: Any, cond: torch.Tensor, params: Any) -> None:
    found = {}
    for batched in (True, False):
        wall_ms(lambda b=batched: denoised(flow, noise, cond, params, b))
        found[batched] = min(
            wall_ms(lambda b=batched: denoised(flow, noise, cond, params, b)) for _ in range(2)
        )
    note = f"two passes {found[False] / 1e3:.3f} s"
    bench.add(f"sampling {name}, both branches in one pass", found[True] / 1e3, "s", None, note)


def _agreement(bench: Session, flow: Any, noise: Any, cond: torch.Tensor, params: Any, limit: float) -> None:
    """Relative L2 distance of whole runs, recorded and fused, from the same runs by torch's formulas."""
    dtype = flow.flow.dtype
    exact_flow = None
    if dtype != torch.float32:
        exact_flow = RecordedFlow(copy.deepcopy(flow.flow).convert_to(torch.float32))
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        dense = isinstance(noise, torch.Tensor)
        start = torch.randn_like(noise) if dense else noise.replace(torch.randn_like(noise.feats))
        found["ours"].append(denoised(flow, start, cond, params))
        with unrecorded():
            found["unrecorded"].append(denoised(flow, start, cond, params))
            with plain_torch():
                found["torch"].append(denoised(flow, start, cond, params))
        if exact_flow is not None:
            found["exact"].append(denoised(exact_flow, start, cond, params))
    runs = {name: torch.cat(results).flatten() for name, results in found.items()}

    def apart(a: str, b: str) -> float:
        return float((runs[a] - runs[b]).norm() / runs["torch"].norm())

    note = f"{DRAWS} runs together; recording alone {apart('ours', 'unrecorded'):.2g}"
    if "exact" in runs:
        note += f"; from float32: fused {apart('ours', 'exact'):.2g}, torch {apart('torch', 'exact'):.2g}"
    name = f"sampling, fused against torch, {str(dtype).removeprefix('torch.')}: relative L2"
    bench.add(name, apart("ours", "torch"), "", limit, note)
