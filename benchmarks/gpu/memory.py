"""The whole pipeline in low-VRAM mode under a cap on the device's memory, its weights waiting on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.pipelines.conditioner import Condition, ImageConditioner
from trellis2.pipelines.latents import Normalization
from trellis2.pipelines.stages import LatentStage
from trellis2.samplers import FlowEulerGuidanceIntervalSampler

from .networks import network
from .sampling import SHAPE, STRUCTURE, TEXTURE
from .session import Session, peak_gb
from .voxels import Pyramid, pyramid

CAPS = {1024: 16.0, 1536: 24.0}  # GB of the cards that a cascade of this resolution is to run on
PARTS = {
    "sparse_structure_flow_model": "structure flow",
    "sparse_structure_decoder": "structure decoder",
    "shape_slat_flow_model_512": "shape flow",
    "shape_slat_flow_model_1024": "shape flow",
    "shape_slat_decoder": "shape decoder",
    "tex_slat_flow_model_1024": "texture flow",
    "tex_slat_decoder": "texture decoder",
}


@torch.no_grad()
def run(bench: Session) -> None:
    low = pyramid(512)
    models = {name: network(kind).cpu() for name, kind in PARTS.items()}
    unit = Normalization({"mean": [0.0] * 32, "std": [1.0] * 32})
    sampler = FlowEulerGuidanceIntervalSampler(1e-5)
    stages = (
        LatentStage("sparse_structure", sampler, STRUCTURE),
        LatentStage("shape_slat", sampler, SHAPE, unit),
        LatentStage("tex_slat", sampler, TEXTURE, unit),
    )
    pipeline = Trellis2ImageTo3DPipeline(models, {s.name: s for s in stages}, low_vram=True).to("cuda")
    for resolution, cap in CAPS.items():
        shape = pyramid(resolution)
        torch.cuda.empty_cache()
        with _capped(cap):
            bench.attempt(
                f"low VRAM {resolution}", partial(_cascade, bench, pipeline, low, shape, resolution, cap)
            )


def _cascade(
    bench: Session,
    pipeline: Trellis2ImageTo3DPipeline,
    low: Pyramid,
    shape: Pyramid,
    resolution: int,
    cap: float,
) -> None:
    """The stages of a cascade, on the object's voxels: what random weights would choose is not an object."""
    pictures = {size: torch.randn(1, length, 1024) for size, length in ((512, 1029), (1024, 4101))}
    seen = ImageConditioner({size: Condition(x, torch.zeros_like(x)) for size, x in pictures.items()})
    models, step = pipeline.models, _Watch()
    started = time.perf_counter()
    step("structure", pipeline.sample_sparse_structure, seen, 32)
    coarse = models["shape_slat_flow_model_512"]
    step("coarse", pipeline.sample_shape_slat, seen, coarse, low.coords[0], 512)
    fine = models["shape_slat_flow_model_1024"]
    latent = step("fine", pipeline.sample_shape_slat, seen, fine, shape.coords[0], resolution)
    colours = models["tex_slat_flow_model_1024"]
    texture = step("texture", pipeline.sample_tex_slat, seen, colours, latent, resolution)
    remembering = shape.remembering_latent(32).replace(latent.feats)
    step("shape decode", pipeline.decode_shape_slat, remembering, resolution)
    del remembering
    step("texture decode", pipeline.decode_tex_slat, texture, shape.guides())
    seconds = time.perf_counter() - started
    peaks = ", ".join(f"{name} {gb:.1f}" for name, gb in step.allocated.items())
    note = f"{shape.tokens} tokens, {shape.voxels} voxels, {seconds:.1f} s; allocated: {peaks}"
    bench.add(f"low VRAM, {resolution} cascade: reserved at most", step.reserved, "GB", cap, note)


class _Watch:
    """Runs steps and keeps the peaks of torch's memory (10^9 bytes)."""

    def __init__(self) -> None:
        self.allocated: dict[str, float] = {}
        self.reserved = 0.0

    def __call__(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        results: list[Any] = []
        self.allocated[name] = peak_gb(lambda: results.append(call(*args)))
        self.reserved = max(self.reserved, torch.cuda.max_memory_reserved() / 1e9)
        return results[0]


@contextmanager
def _capped(gigabytes: float) -> Iterator[None]:
    """torch gets no more than this of the device."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(gigabytes * 1e9 / total, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
