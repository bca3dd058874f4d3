"""to_glb of the 3 M-vertex object and the preview's frames, where Warp is installed."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import torch

from .session import Session, SkippedError, peak_gb, wall_ms

NEEDED = ("warp", "xatlas", "fast_simplification")
FRAMES = 120


def run(bench: Session) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if "warp" in missing:
        raise SkippedError(f"not installed: {', '.join(missing)}")
    made = _object(1024)
    if missing:
        bench.skipped["to_glb"] = f"not installed: {', '.join(missing)}"
    else:
        bench.attempt("to_glb", partial(_glb, bench, made))
    bench.attempt("preview", partial(_preview, bench, made))


def _object(resolution: int) -> dict[str, Any]:
    from benchmarks.objects import benchmark_object

    made = benchmark_object(resolution)
    return {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in made.items()}


def _glb(bench: Session, made: dict[str, Any]) -> None:
    from o_voxel.postprocess import to_glb

    from benchmarks.glb import arguments

    asset: Any = None

    def call() -> None:
        nonlocal asset
        asset = to_glb(**arguments(made), decimation_target=500_000, texture_size=2048)

    first = wall_ms(call)
    ms = wall_ms(call)
    steps = ", ".join(f"{name} {value:.2f}" for name, value in asset.report.seconds.items())
    note = f"{len(made['vertices'])} vertices; first {first / 1e3:.1f} s; {steps}"
    bench.add("to_glb to 500 k faces, 2048 texture", ms / 1e3, "s", 4.0, note)


def _preview(bench: Session, made: dict[str, Any]) -> None:
    from benchmarks.objects import asset_of
    from trellis2.renderers import EnvMap, studio
    from trellis2.utils.render_utils import render_video

    mesh = asset_of(made)
    light = EnvMap(studio())
    _ = light.prepared
    render_video(mesh, 512, num_frames=1, envmap=light, keys=["shaded"])
    peak = 0.0

    def call() -> None:
        render_video(mesh, 512, num_frames=FRAMES, envmap=light, keys=["shaded"])

    ms = wall_ms(call)
    peak = peak_gb(lambda: render_video(mesh, 512, num_frames=2, envmap=light, keys=["shaded"]))
    bench.add(f"{FRAMES} frames 512x512", ms / 1e3, "s", 3.0, f"peak {peak:.1f} GB")
