"""Sampling with token counts that no run had before, beside the same counts again; whole objects, too."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from trellis2.models import RecordedFlow
from trellis2.sparse import SparseTensor

from .networks import network
from .sampling import SHAPE, STRUCTURE, TEXTURE, denoised
from .session import Session, environment, peak_gb, wall_ms
from .voxels import surface_cells

SIZES = {
    2900: 3,
    5000: 3,
    12000: 2,
    17000: 2,
    27000: 1,
    45000: 1,
}  # tokens, and how many lengths of about so many
FORCED = ("sdpa", "cudnn", "cudnn_padded", "triton", "triton_balanced")
FORCED_SIZES = {2900: 2, 12000: 2}
SPREAD = 0.03
TARGETS = {
    ("512", "exact"): 1.15,
    ("1024 cascade", "exact"): 4.6,
    ("512", "fast"): 0.8,
    ("1024 cascade", "fast"): 3.1,
    ("1024 cascade of 45 k tokens", "exact"): 25.0,
    ("1024 cascade of 45 k tokens", "fast"): 13.0,
}


class Bench:
    """The flows, image tokens and voxels, and a source of lengths that no earlier process had."""

    def __init__(self) -> None:
        self.flows = {
            name: RecordedFlow(network(f"{name} flow")) for name in ("structure", "shape", "texture")
        }
        self.image = {n: torch.randn(1, n, 1024, device="cuda") for n in (1029, 4101)}
        self.dense = torch.randn(1, 8, 16, 16, 16, device="cuda")
        self.cells = {grid: surface_cells(grid) for grid in (32, 64, 96, 128)}
        self.random = random.Random(os.urandom(8))

    def length(self, size: int) -> int:
        return self.random.randint(int((1 - SPREAD) * size), int((1 + SPREAD) * size))

    def latent(self, tokens: int, channels: int = 32) -> SparseTensor:
        """Noise on so many of the object's cells."""
        cells = next((cells for cells in self.cells.values() if len(cells) >= tokens), None)
        if cells is None:
            raise ValueError(f"no grid has {tokens} cells")
        rows = torch.randperm(len(cells), device="cuda")[:tokens].sort().values
        coords = torch.cat([torch.zeros_like(cells[rows, :1]), cells[rows]], dim=1)
        return SparseTensor(torch.randn(tokens, channels, device="cuda"), coords, 1)

    def sample(self, stage: str, tokens: int, picture: int, **options: Any) -> None:
        """One stage's flow, as the pipeline samples it."""
        image = self.image[picture]
        if stage == "structure":
            denoised(self.flows[stage], self.dense, image, STRUCTURE, **options)
            return
        noise = self.latent(tokens)
        if stage == "shape":
            denoised(self.flows[stage], noise, image, SHAPE, **options)
        else:
            known = noise.replace(torch.randn_like(noise.feats))
            denoised(self.flows[stage], noise, image, TEXTURE, concat_cond=known, **options)

    def whole(self, name: str, low: int, high: int, **options: Any) -> None:
        """All flows of an object."""
        self.sample("structure", 0, 1029, **options)
        self.sample("shape", low, 1029, **options)
        if name == "512":
            self.sample("texture", low, 1029, **options)
        else:
            self.sample("shape", high, 4101, **options)
            self.sample("texture", high, 4101, **options)


@torch.no_grad()
def run(bench: Session) -> None:
    made = Bench()
    for quality in ("exact", "fast"):  # what every process pays once: kernels loaded and compiled
        for tokens in (1024, 1025, 9216, 9217):
            made.sample("shape", tokens, 1029, quality=quality)
            made.sample("texture", tokens, 1029, quality=quality)
        made.sample("structure", 0, 1029, quality=quality)
    for name, quality in TARGETS:
        bench.attempt(f"new {name} {quality}", partial(_whole, bench, made, name, quality))
    for size, draws in SIZES.items():
        bench.attempt(f"new {size}", partial(_stage, bench, made, "shape", size, draws))
    for backend in FORCED:
        for size, draws in FORCED_SIZES.items():
            bench.attempt(
                f"new {size} {backend}", partial(_stage, bench, made, "shape", size, draws, backend)
            )


def pairs(call: Callable[[int], None], lengths: Sequence[int]) -> tuple[list[float], list[float]]:
    """Seconds of each length the first time, and the second time right after."""
    times = [(wall_ms(lambda n=n: call(n)), wall_ms(lambda n=n: call(n))) for n in lengths]  # type: ignore[misc]
    first, again = zip(*times, strict=True)
    return [t / 1e3 for t in first], [t / 1e3 for t in again]


def _stage(
    bench: Session, made: Bench, stage: str, size: int, draws: int, backend: str | None = None
) -> None:
    picture = 1029 if size < 8000 else 4101
    lengths = [made.length(size) for _ in range(draws)]
    call = partial(_sample_at, made, stage, picture)
    with environment(**({"ATTN_BACKEND": backend} if backend else {})):
        first, again = pairs(call, lengths)
        peak = peak_gb(lambda: call(lengths[0]))
    label = f"sampling {stage}, about {size} tokens" + (f", {backend}" if backend else "")
    _report(bench, label, lengths, first, again, f"; peak {peak:.1f} GB", None)


def _sample_at(made: Bench, stage: str, picture: int, tokens: int) -> None:
    made.sample(stage, tokens, picture)


def _whole(bench: Session, made: Bench, name: str, quality: str) -> None:
    longest = "45 k" in name
    low, high, draws = (8000, 45000, 1) if longest else (2900, 12000, 3)
    lengths = [(made.length(low), made.length(high)) for _ in range(draws)]
    label, target = f"all flows of {name}, {quality}", TARGETS[name, quality]
    shown = [low if name == "512" else high for low, high in lengths]
    if longest:  # half a minute each: once
        seconds = wall_ms(lambda: made.whole(name, *lengths[0], quality=quality)) / 1e3
        bench.add(f"{label}, new length", seconds, "s", target, f"once, at {shown[0]}")
        return
    first, again = pairs(lambda i: made.whole(name, *lengths[i], quality=quality), range(len(lengths)))
    _report(bench, label, shown, first, again, "", target)


def _report(
    bench: Session,
    label: str,
    lengths: Sequence[int],
    first: list[float],
    again: list[float],
    more: str,
    target: float | None,
) -> None:
    ratio = statistics.median(a / b for a, b in zip(first, again, strict=True))
    spread = f"{min(first):.3f} to {max(first):.3f} s at {', '.join(map(str, lengths))}"
    bench.add(f"{label}, new length", statistics.median(first), "s", target, f"{spread}{more}")
    bench.add(f"{label}, repeated length", statistics.median(again), "s", None, "the same right after")
    bench.add(f"{label}, new over repeated", ratio, "", 1.05, "median of the pairs")
