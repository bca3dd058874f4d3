"""The decoders at 0.75 M and 3 M voxels, their geometry given by the object; dual grid to mesh."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from trellis2.sparse import SparseTensor

from .networks import network
from .session import Session, SkippedError, device_ms, peak_gb, wall_ms
from .voxels import Pyramid, pyramid


@torch.no_grad()
def run(bench: Session) -> None:
    bench.attempt("structure decoder", partial(_structure, bench))
    shapes = {resolution: pyramid(resolution) for resolution in (512, 1024, 1536)}
    decoder = network("shape decoder")
    for resolution, shape in shapes.items():
        bench.attempt(f"shape decode {resolution}", partial(_shape, bench, decoder, resolution, shape))
    bench.attempt("dual grid to mesh", partial(_mesh, bench, decoder, shapes[1024]))
    del decoder
    decoder = network("texture decoder")
    for resolution, shape in shapes.items():
        bench.attempt(f"texture decode {resolution}", partial(_texture, bench, decoder, resolution, shape))


def _structure(bench: Session) -> None:
    decoder = network("structure decoder")
    latent = torch.randn(1, 8, 16, 16, 16, device="cuda")
    bench.add("structure decode", device_ms(lambda: decoder(latent)))


def _shape(bench: Session, decoder: Any, resolution: int, shape: Pyramid) -> None:
    _record(bench, "shape", resolution, shape, lambda: decoder.decode(shape.remembering_latent(32)))


def _texture(bench: Session, decoder: Any, resolution: int, shape: Pyramid) -> None:
    """By itself, and as the pipeline runs it: on guides that still hold the shape decoder's tables."""

    def decode(guides: list[SparseTensor]) -> SparseTensor:
        out: SparseTensor = decoder(shape.latent(32), guide_subs=guides)
        return out

    guides = shape.guides()
    decode(guides)
    _record(bench, "texture", resolution, shape, lambda: decode(guides), "tables from the shape decoder")
    guides.clear()
    label = f"texture decode by itself, {shape.voxels} voxels"
    bench.add(label, device_ms(lambda: decode(shape.guides()), 3, 1), "ms", None, "tables included")


def _record(
    bench: Session, kind: str, resolution: int, shape: Pyramid, call: Any, tables: str = "tables included"
) -> None:
    first = wall_ms(call)
    ms = device_ms(call, 5, 1)
    peak = peak_gb(call)
    target = 140.0 if resolution == 1024 else None
    note = f"{shape.tokens} tokens; {tables}; first {first:.0f} ms; peak {peak:.1f} GB"
    bench.add(f"{kind} decode, {shape.voxels} voxels", ms, "ms", target, note)


def _mesh(bench: Session, decoder: Any, shape: Pyramid) -> None:
    try:
        from o_voxel.convert import flexible_dual_grid_to_mesh
    except ImportError as error:
        raise SkippedError(f"{error.name} is not installed") from error
    coords = shape.coords[-1]
    vertices = torch.rand(len(coords), 3, device="cuda")
    flags = torch.rand(len(coords), 3, device="cuda") < 0.5
    weights = torch.rand(len(coords), 1, device="cuda") + 0.5
    box = [[-0.5] * 3, [0.5] * 3]

    def call() -> Any:
        return flexible_dual_grid_to_mesh(coords[:, 1:], vertices, flags, weights, box, grid_size=1024)

    bench.add(f"dual grid to mesh, {len(coords)} voxels", device_ms(call, 5, 1), "ms", None, "random flags")
