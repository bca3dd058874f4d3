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
from .voxels import Pyramid, pyramid, surface_cells

# GB of the reference implementation in the same place, on the same H200.
SAMPLING, SHAPE_DECODER, TEXTURE_DECODER = 3.3, 6.0, 6.1
SHORT = {"steps": 3}  # enough: guided and unguided steps have been seen


@torch.no_grad()
def run(bench: Session) -> None:
    shape = pyramid(1024)
    for kept in (True, False):
        how = "keys and values kept" if kept else "low VRAM"
        bench.attempt(f"peak structure, {how}", partial(_structure, bench, kept, how))
        for stage, settings in (("shape", SHAPE), ("texture", TEXTURE)):
            for tokens in (0, 26712):
                x = _longer(tokens) if tokens else shape.latent(32)
                call = partial(_flow, bench, stage, settings, x, kept, how)
                bench.attempt(f"peak {stage} {len(x.feats)}, {how}", call)
    bench.attempt("peak shape decode", partial(_shape, bench, shape))
    bench.attempt("peak texture decode", partial(_texture, bench, shape))


def _longer(tokens: int) -> SparseTensor:
    cells = surface_cells(96)[:tokens]
    coords = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    return SparseTensor(torch.randn(len(cells), 32, device="cuda"), coords, 1)


def _record(bench: Session, name: str, target: float | None, call: Callable[[], Any], note: str = "") -> None:
    before = torch.cuda.memory_allocated() / 1e9
    call()
    bench.add(
        f"peak {name}",
        peak_gb(call),
        "GB",
        target,
        f"{before:.2f} GB before the call, weights included{note}",
    )


def _structure(bench: Session, kept: bool, how: str) -> None:
    flow = RecordedFlow(network("structure flow"), low_memory=not kept)
    noise, image = (
        torch.randn(1, 8, 16, 16, 16, device="cuda"),
        torch.randn(1, 1029, 1024, device="cuda"),
    )
    _record(
        bench,
        f"structure, 4096 tokens, {how}",
        None,
        lambda: denoised(flow, noise, image, STRUCTURE | SHORT),
    )


def _flow(bench: Session, stage: str, settings: Any, x: SparseTensor, kept: bool, how: str) -> None:
    flow = RecordedFlow(network(f"{stage} flow"), low_memory=not kept)
    image = torch.randn(1, 4101, 1024, device="cuda")
    extra = {"concat_cond": x.replace(torch.randn_like(x.feats))} if stage == "texture" else {}
    tokens = len(x.feats)
    target = SAMPLING if tokens < 20000 else None
    for quality in ("exact", "fast"):
        # Eight steps are the fewest that "fast" forecasts at.
        options = settings | (SHORT if quality == "exact" else {"steps": 8})
        call = partial(denoised, flow, x, image, options, quality=quality, **extra)
        _record(bench, f"{stage}, {tokens} tokens, {quality}, {how}", target, call)


def _shape(bench: Session, shape: Pyramid) -> None:
    decoder = network("shape decoder")
    _record(
        bench,
        f"shape decode, {shape.voxels} voxels",
        SHAPE_DECODER,
        lambda: decoder.decode(shape.remembering_latent(32)),
    )


def _texture(bench: Session, shape: Pyramid) -> None:
    decoder = network("texture decoder")
    guides = shape.guides()
    decoder(shape.latent(32), guide_subs=guides)
    _record(
        bench,
        f"texture decode, {shape.voxels} voxels",
        TEXTURE_DECODER,
        lambda: decoder(shape.latent(32), guide_subs=guides),
        ", tables of the shape decoder too",
    )
