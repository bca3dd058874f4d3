"""The submanifold convolution at each level of a 1024 object: table, plan, our kernel, torch's gather."""

from __future__ import annotations

from functools import partial

import torch

from trellis2.sparse import neighbor_table
from trellis2.sparse.conv_plan import TILE, ConvPlan, conv_plan
from trellis2.sparse.conv_torch import submanifold_conv

from .session import Session, device_ms, wall_ms
from .voxels import pyramid

# Level, channels in and out: those of the decoder's blocks and of its up blocks' first convolutions.
SHAPES = (
    (0, 1024, 1024),
    (0, 1024, 4096),
    (1, 512, 512),
    (1, 512, 2048),
    (2, 256, 256),
    (2, 256, 1024),
    (3, 128, 128),
    (3, 128, 512),
    (4, 64, 64),
)


@torch.no_grad()
def run(bench: Session) -> None:
    shape = pyramid(1024)
    plans: dict[int, tuple[torch.Tensor, ConvPlan]] = {}
    for level, coords in enumerate(shape.coords):
        table = neighbor_table(coords)
        plan = conv_plan(table)
        plans[level] = table, plan
        building = device_ms(lambda c=coords: neighbor_table(c), 5, 1)
        planning = device_ms(lambda t=table: conv_plan(t), 5, 1)
        present = float((table < len(table)).sum()) / len(table)
        needed = float(plan.counts.float().mean())
        note = f"plan {planning:.2f} ms; {present:.1f} neighbours, {needed:.1f} taps a tile"
        bench.add(f"neighbour table, {len(coords)} voxels", building, "ms", None, note)
    for level, ci, co in SHAPES:
        bench.attempt(f"convolution {ci} to {co}", partial(_one, bench, *plans[level], ci, co))
    for level, ci, co in ((1, 512, 512), (3, 128, 128)):
        bench.attempt(f"blocks {ci} to {co}", partial(_sweep, bench, plans[level][1], ci, co))
    bench.attempt("convolution backward", partial(_backward, bench, plans[3][1], 128))


def _one(bench: Session, table: torch.Tensor, plan: ConvPlan, ci: int, co: int) -> None:
    from trellis2.sparse.conv_triton import planned_conv

    feats, weight, bias = _inputs(len(table), ci, co)
    first = wall_ms(lambda: planned_conv(feats, plan, weight, bias))
    ours = device_ms(lambda: planned_conv(feats, plan, weight, bias))
    torchs = device_ms(lambda: submanifold_conv(feats, table, weight, bias), 3, 1)
    useful = 2.0 * ci * co * float((table < len(table)).sum())
    done = 2.0 * ci * co * TILE * float(plan.counts.sum())
    note = (
        f"torch {torchs:.3g} ms; needed {bench.share(ours, useful)}; done {done / ours / 1e9:.0f} TFLOP/s; "
        f"first {first:.0f} ms"
    )
    bench.add(f"convolution {ci} to {co}, {len(table)} voxels", ours, "ms", None, note)


def _inputs(rows: int, ci: int, co: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    feats = torch.randn(rows, ci, device="cuda", dtype=torch.float16)
    weight = torch.randn(co, 3, 3, 3, ci, device="cuda", dtype=torch.float16) / (27 * ci) ** 0.5
    return feats, weight, torch.randn(co, device="cuda", dtype=torch.float16)


def _sweep(bench: Session, plan: ConvPlan, ci: int, co: int) -> None:
    """Other block shapes, for whoever sets the default ones."""
    from trellis2.sparse.conv_triton import Blocks, blocks_for, correlate

    feats, weight, bias = _inputs(plan.rows, ci, co)
    flat = weight.flatten(1, 3)
    default = blocks_for(feats.device, feats.dtype, ci, co)
    found: dict[str, float] = {}
    choices = [
        default,
        Blocks(128, 64, 8, 4),
        Blocks(128, 64, 4, 3),
        Blocks(128, 128, 8, 2),
        Blocks(256, 64, 8, 3),
    ]
    for blocks in dict.fromkeys(choices):
        if blocks.n > 2 * co or bench.left < 5:
            continue
        name = f"{blocks.n}x{blocks.k}, {blocks.warps} warps, {blocks.stages} stages"
        try:
            found[name] = device_ms(lambda b=blocks: correlate(feats, plan, flat, bias, b), 5, 1)
        except Exception as error:  # a shape that does not fit the device is an answer, too
            bench.detail[f"blocks {ci} to {co}, {name}"] = repr(error)[:200]
    bench.detail[f"blocks {ci} to {co}"] = found
    best = min(found, key=lambda name: found[name])
    shown = "; ".join(f"{name}: {ms:.3g}" for name, ms in sorted(found.items(), key=lambda x: x[1]))
    bench.add(f"best blocks {ci} to {co}: {best}", found[best], "ms", None, shown)


def _backward(bench: Session, plan: ConvPlan, channels: int) -> None:
    from trellis2.sparse.conv_triton import planned_conv, weight_gradient

    feats, weight, bias = _inputs(plan.rows, channels, channels)
    leaves = [x.requires_grad_() for x in (feats, weight, bias)]
    upstream = torch.randn_like(feats)

    def both() -> None:
        planned_conv(leaves[0], plan, *leaves[1:]).backward(upstream)

    with torch.enable_grad():
        ms = device_ms(both, 5, 2)
    alone = device_ms(lambda: weight_gradient(feats, upstream, plan), 5, 1)
    note = f"of these {alone:.2f} ms the weight's gradient"
    bench.add(
        f"convolution {channels} to {channels}, forward and backward, {plan.rows} voxels",
        ms,
        "ms",
        None,
        note,
    )
