"""Where an export's seconds go inside its steps: `python -m benchmarks.gpu.export_steps`.

An object at 1024 to 1 M faces and 4096 textures, whole and with 3 % of its faces missing, each once to
compile kernels and once watched; then the rebuild on finer lattices. `--tiny` runs the same on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from unittest.mock import patch

import torch
from o_voxel.postprocess import geometry

from benchmarks.gpu.watch import Watch
from benchmarks.objects import as_decoded, asset_of, benchmark_object, frayed
from trellis2.progress import Monitor
from trellis2_modal.protocol.requests import ExtractSettings
from trellis2_modal.service.exporter import MeshExporter

LATTICES = (176, 352, 512)


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
