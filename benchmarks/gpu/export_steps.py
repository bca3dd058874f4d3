"""Where an export's seconds go inside its steps: `python -m benchmarks.gpu.export_steps`.

An object at 1024 to 1 M faces and 4096 textures, whole and with 3 % of its faces missing, each once to
compile kernels and once watched; then the rebuild on finer lattices. `--tiny` runs the same on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from o_voxel.mesh.charts import flatten, packing, unwrap
from o_voxel.mesh.charts.laplacian import ConjugateGradients
from o_voxel.mesh.rebuild import rebuild, spaces
from o_voxel.mesh.repair import manifold
from o_voxel.postprocess import asset, geometry, pipeline

from benchmarks.gpu.first_request import finish
from benchmarks.objects import as_decoded, asset_of, benchmark_object, frayed
from trellis2.progress import Monitor
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.service.exporter import MeshExporter

LATTICES = (176, 352, 512)
WATCHED: list[tuple[Any, str]] = [
    (pipeline, "check_source fill_holes is_frayed rebuilt TriangleBVH clean_and_simplify simplified_closed"),
    (pipeline, "unwrap shaded_layout cache_order bake fill_gutters _material _asset topology inside_out"),
    (asset.GlbAsset, "export"),
    (geometry, "simplify make_manifold unify_orientations remove_small_components"),
    (unwrap, "face_graph cluster_faces smooth_borders flatten_charts _merge_small pack_charts _box_fill"),
    (flatten, "_as_rigid_as_possible _is_valid"),
    (ConjugateGradients, "__init__ solve"),
    (packing, "_outline _inner _largest_fitting"),
    (rebuild, "surface_band spaces solid_depth _manifold_cells surface_nets _pulled_back _evenly_spread"),
    (spaces, "sky hollow_rooms in_reach grown"),
    (manifold, "_without_folds _parted _pairs_around"),
]


class Watch:
    """Seconds and calls of functions by the path of watched functions that led to them; only for functions
    that one thread calls."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._path: list[str] = []

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            finish(self.device)
            began = time.perf_counter()
            self._path.append(name)
            try:
                return call(*args, **options)
            finally:
                finish(self.device)
                path = " > ".join(self._path)
                self.seconds[path] += time.perf_counter() - began
                self.calls[path] += 1
                self._path.pop()

        return timed

    def run(self, call: Callable[[], Any]) -> Any:
        with ExitStack() as stack:
            for owner, names in WATCHED:
                for name in names.split():
                    stack.enter_context(patch.object(owner, name, self.wrapped(name, getattr(owner, name))))
            return call()

    def lines(self) -> str:
        found = []
        for path in sorted(self.seconds):
            *above, name = path.split(" > ")
            found.append(f"{'  ' * len(above)}{name:30} {self.seconds[path]:8.3f} s {self.calls[path]:4}")
        return "\n".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.export_steps", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small object on the CPU")
    tiny = parser.parse_args().tiny
    if not tiny and not torch.cuda.is_available():
        print("no CUDA device: skipped (--tiny runs on the CPU)")
        return 0
    device, side, faces, texels = ("cpu", 128, 20_000, 256) if tiny else ("cuda", 1024, 1_000_000, 4096)
    asked = {"decimation_target": faces, "texture_size": texels, "texture_format": "webp"}
    settings, exporter = ExtractSettings.model_validate(asked), MeshExporter()
    made = as_decoded(benchmark_object(side, device))
    for name, shape in (("whole", made), ("3 % of the faces missing", frayed(made, 0.03))):
        mesh = asset_of(shape)
        mesh.fill_holes()  # as the pipeline does
        exporter.asset(mesh, settings, Monitor())
        watch = Watch(device)
        watch.run(lambda mesh=mesh: exporter.asset(mesh, settings, Monitor()))  # type: ignore[misc]
        print(f"== {name}\n{watch.lines()}", flush=True)
    for steps in LATTICES:
        with patch.object(geometry, "MOST_STEPS", steps):
            watch = Watch(device)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            _, report = watch.run(lambda: exporter.asset(mesh, settings, Monitor()))
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else float("nan")
        print(
            f"lattice of {steps}: rebuilt in {watch.seconds['rebuilt']:.2f} s, {report['faces']:,} faces, "
            f"{report['charts']} charts, watertight {report['watertight']}, {peak:.1f} GB at most",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
