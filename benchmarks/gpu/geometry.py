"""to_glb of the 3 M-vertex object, the file, and the preview's frames, where Warp is installed."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from .session import Session, SkippedError, peak_gb, wall_ms

FRAMES = 120
FACES, TEXTURE = 500_000, 2048


def run(bench: Session) -> None:
    if importlib.util.find_spec("warp") is None:
        raise SkippedError("not installed: warp-lang")
    from benchmarks.objects import benchmark_object

    made = benchmark_object(1024, device="cuda")
    bench.attempt("to_glb", partial(_glb, bench, made))
    bench.attempt("preview", partial(_preview, bench, made))
    bench.attempt("to_glb, remeshed", partial(_remeshed, bench, made))


def _glb(bench: Session, made: dict[str, Any]) -> None:
    from o_voxel.postprocess import to_glb

    from benchmarks.glb import arguments

    asset: Any = None

    def call() -> None:
        nonlocal asset
        asset = to_glb(**arguments(made), decimation_target=FACES, texture_size=TEXTURE)

    first = wall_ms(call)  # compiles the kernels, or loads them from their cache
    ms = wall_ms(call)
    note = f"{len(made['vertices'])} vertices; first {first / 1e3:.1f} s; {_steps(asset)}"
    bench.add(f"to_glb to {FACES // 1000} k faces, {TEXTURE} texture", ms / 1e3, "s", 4.0, note)
    if importlib.util.find_spec("PIL") is None:
        bench.skipped["GLB file"] = "not installed: pillow"
        return
    for kind in ("png", "webp"):
        ms = wall_ms(partial(asset.export, texture_format=kind))
        note = f"{asset.report.bytes['glb'] / 1e6:.1f} MB"
        bench.add(f"GLB file with {kind} textures", ms / 1e3, "s", None, note)


def _remeshed(bench: Session, made: dict[str, Any]) -> None:
    from o_voxel.postprocess import to_glb

    from benchmarks.glb import arguments

    asset: Any = None

    def call() -> None:
        nonlocal asset
        asset = to_glb(**arguments(made), decimation_target=FACES, texture_size=TEXTURE, remesh=True)

    peak = peak_gb(call)
    ms = wall_ms(call)
    bench.add("to_glb, remeshed", ms / 1e3, "s", None, f"peak {peak:.1f} GB; {_steps(asset)}")


def _steps(asset: Any) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in asset.report.seconds.items())


def _preview(bench: Session, made: dict[str, Any]) -> None:
    from benchmarks.objects import asset_of
    from trellis2.renderers import EnvMap, studio
    from trellis2.utils.render_utils import render_video

    mesh = asset_of(made)
    light = EnvMap(studio()).to(mesh.vertices.device)
    render_video(mesh, 512, num_frames=1, envmap=light, keys=["shaded"])

    def call() -> None:
        render_video(mesh, 512, num_frames=FRAMES, envmap=light, keys=["shaded"])

    ms = wall_ms(call)
    peak = peak_gb(lambda: render_video(mesh, 512, num_frames=2, envmap=light, keys=["shaded"]))
    bench.add(f"{FRAMES} frames 512x512", ms / 1e3, "s", 3.0, f"peak {peak:.1f} GB")
