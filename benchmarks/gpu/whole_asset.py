"""From a picture to a GLB of 1 M faces with 4096 textures: `python -m benchmarks.gpu.whole_asset`.

The 1024 cascade, exact and fast, in a process that has made one such asset before; another object, and so
other token counts, in each request. Networks and objects are those of `first_request`. `--tiny` runs the
same on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu.first_request import (
    FULL,
    TINY,
    ObjectPipeline,
    Size,
    device_name,
    make_objects,
    photo,
    read_objects,
    timed,
)
from benchmarks.record import Record
from trellis2.progress import Monitor
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings
from trellis2_modal.service.generator import TRELLIS2Generator

RESULTS = Path(__file__).parents[1] / "results" / "gpu-whole-asset.json"
KIND = "1024_cascade"
DRAWS = 3
TARGETS = {("exact", "webp"): 9.0, ("fast", "webp"): 6.0, ("exact", "png"): 9.0}


def measure(size: Size, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Seconds and stages of each request by quality and texture format; the very first one is left out."""
    generator = TRELLIS2Generator(
        lambda: ObjectPipeline(size, read_objects(folder, size.device)), "random", size.device
    )
    generator.load_model_cpu()
    runs: dict[str, list[dict[str, Any]]] = {}
    for number, (quality, textures) in enumerate(
        [next(iter(TARGETS)), *(k for k in TARGETS for _ in range(DRAWS))]
    ):
        asked = GenerateSettings.model_validate(
            {"pipeline_type": KIND, "preview": "none", "seed": number, "quality": quality}
        )
        largest = {"decimation_target": 1_000_000, "texture_size": 4096, "texture_format": textures}
        export = ExtractSettings.model_validate(largest | size.extraction)
        made: list[dict[str, Any]] = []
        state = timed(size, made, partial(generator.generate, photo(number), asked, Monitor())).files["state"]
        timed(size, made, partial(generator.extract_glb, state.data, export, Monitor()))
        if number:
            seconds = sum(part["seconds"] for part in made)
            runs.setdefault(f"{quality}, {textures}", []).append({"seconds": seconds, "parts": made})
    return runs


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.whole_asset", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and objects on the CPU")
    options = parser.parse_args()
    size = TINY if options.tiny else FULL
    if size.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: skipped (--tiny runs on the CPU)")
        return 0
    with TemporaryDirectory() as made:
        make_objects(size, Path(made), [KIND] * (1 + DRAWS * len(TARGETS)))
        runs = measure(size, Path(made))
    rows = []
    for (quality, textures), target in TARGETS.items():
        found = runs[f"{quality}, {textures}"]
        times = ", ".join(f"{run['seconds']:.2f}" for run in found)
        parts = "; ".join(
            f"{name} {seconds:.2f}" for part in found[-1]["parts"] for name, seconds in part["stages"].items()
        )
        median = statistics.median(run["seconds"] for run in found)
        rows.append(
            Record(f"picture to GLB, {quality}, {textures}", median, "s", target, f"{times} s; {parts}")
        )
        print(f"{rows[-1].name:32} {median:7.2f} s {rows[-1].note}")
    if not options.tiny:
        stamp = {
            "machine": device_name(size.device),
            "date": time.strftime("%Y-%m-%d"),
            "name": "gpu-whole-asset",
        }
        entry = stamp | {"records": [dataclasses.asdict(row) for row in rows], "measured": runs}
        RESULTS.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
