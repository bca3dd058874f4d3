"""Every peak of device memory that the project has a figure for, each network alone on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from trellis2.models import RecordedFlow
from trellis2.sparse import SparseTensor

from .networks import network
from .sampling import SHAPE, STRUCTURE, TEXTURE, denoised
from .session import Session, peak_gb
from .voxels import pyramid, surface_cells

# GB of the reference implementation in the same place, on the same H200.
SAMPLING, SHAPE_DECODER, TEXTURE_DECODER = 3.3, 6.0, 6.1
STEPS = {"steps": 3}  # guided and unguided ones are among them


@torch.no_grad()
def run(bench: Session) -> None:
    tokens = pyramid(1024).tokens
    for kept in (False, True):
        how = "keys and values kept" if kept else "low VRAM"
        for stage, settings in (("shape", SHAPE), ("texture", TEXTURE)):
            for count, target in ((tokens, SAMPLING), (26712, None)):
                call = partial(_flow, bench, stage, settings, count, kept, f"{count} tokens, {how}", target)
                bench.attempt(f"peak {stage} {count}, {how}", call)
        bench.attempt(f"peak structure, {how}", partial(_structure, bench, kept, how))
    bench.attempt("peak shape decode", partial(_shape, bench))
    bench.attempt("peak texture decode", partial(_texture, bench))


def _latent(tokens: int) -> SparseTensor:
    cells = surface_cells(96)[:tokens]
    coords = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    return SparseTensor(torch.randn(len(cells), 32, device="cuda"), coords, 1)


def _record(bench: Session, name: str, target: float | None, call: Callable[[], Any], note: str = "") -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated() / 1e9
    peak = peak_gb(call)
    kind = "" if target is None else f"; reference {target:g} GB"
    bench.add(f"peak {name}", peak, "GB", target, f"{before:.2f} GB before, weights included{kind}{note}")


def _structure(bench: Session, kept: bool, how: str) -> None:
    noise = torch.randn(1, 8, 16, 16, 16, device="cuda")
    image = torch.randn(1, 1029, 1024, device="cuda")
    flow = RecordedFlow(network("structure flow"), low_memory=not kept)
    for quality in ("exact", "fast"):
        call = partial(denoised, flow, noise, image, STRUCTURE | STEPS, quality=quality)
        _record(bench, f"structure, 4096 tokens, {how}, {quality}", None, call)


def _flow(
    bench: Session, stage: str, settings: Any, tokens: int, kept: bool, how: str, target: float | None
) -> None:
    x, image = _latent(tokens), torch.randn(1, 4101, 1024, device="cuda")
    extra = {"concat_cond": x.replace(torch.randn_like(x.feats))} if stage == "texture" else {}
    flow = RecordedFlow(network(f"{stage} flow"), low_memory=not kept)
    for quality in ("exact", "fast"):
        call = partial(denoised, flow, x, image, settings | STEPS, quality=quality, **extra)
        _record(bench, f"{stage}, {how}, {quality}", target, call)


def _shape(bench: Session) -> None:
    shape, decoder = pyramid(1024), network("shape decoder")
    latent = shape.remembering_latent(32)
    _record(bench, f"shape decode, {shape.voxels} voxels", SHAPE_DECODER, lambda: decoder.decode(latent))


def _texture(bench: Session) -> None:
    """As the pipeline runs it: on guides that hold the shape decoder's tables."""
    shape, decoder = pyramid(1024), network("texture decoder")
    guides = shape.guides()
    decoder(shape.latent(32), guide_subs=guides)
    _record(
        bench,
        f"texture decode, {shape.voxels} voxels",
        TEXTURE_DECODER,
        lambda: decoder(shape.latent(32), guide_subs=guides),
        "; tables of the shape decoder held",
    )
