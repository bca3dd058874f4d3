"""From a picture to a GLB of 1 M faces with 4096 textures: `python -m benchmarks.gpu.whole_asset`.

The 1024 cascade, exact and fast, in a process that has made one such asset before; another object, and so
other token counts, in each request. Then the export alone of a state of which 3 % of the faces are missing,
which is rebuilt. Networks and objects are those of `first_request`. One line a stage, a column a draw.
`--tiny` runs the same on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
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
from benchmarks.objects import asset_of, frayed
from benchmarks.record import Record
from trellis2.progress import Monitor
from trellis2_modal.jobs.execution import JobOutput
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings
from trellis2_modal.service import state as states
from trellis2_modal.service.generator import TRELLIS2Generator

RESULTS = Path(__file__).parents[1] / "results" / "gpu-whole-asset.json"
KIND = "1024_cascade"
DRAWS = 3
MISSING = 0.03
TARGETS = {("exact", "webp"): 9.0, ("fast", "webp"): 6.0, ("exact", "png"): 9.0}
FRAYED = f"export, {MISSING:.0%} of the faces missing, webp"

Run = dict[str, Any]
"""`seconds` of all, and `stages`: seconds by stage; stages of the export follow those of the generation."""


class Bench:
    """One process: what it makes, and the seconds that it took."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.folder = size, folder
        self.generator = TRELLIS2Generator(
            lambda: ObjectPipeline(size, read_objects(folder, size.device)), "random", size.device
        )
        self.generator.load_model_cpu()
        self.number = 0

    def asset(self, quality: str, textures: str) -> Run:
        """A picture's asset and its file."""
        self.number += 1
        asked = GenerateSettings.model_validate(
            {"pipeline_type": KIND, "preview": "none", "seed": self.number, "quality": quality}
        )
        made: list[dict[str, Any]] = []
        call = partial(self.generator.generate, photo(self.number), asked, Monitor())
        self._export(timed(self.size, made, call).files["state"].data, textures, made)
        (generation, export) = made
        stages = {("write state" if k == "state" else k): s for k, s in generation["stages"].items()}
        return {
            "seconds": generation["seconds"] + export["seconds"],
            "stages": _whole(stages, generation["seconds"], "rest of the generation") | _exported(export),
        }

    def frayed(self, textures: str) -> Run:
        """The file of a state whose surface has gaps."""
        self.number += 1
        path = sorted(self.folder.glob("*.pt"))[self.number % 2]
        made = next(iter(read_objects(path, self.size.device)))["mesh"]
        mesh = asset_of(frayed(made, MISSING, self.number))
        mesh.fill_holes()  # as the pipeline does
        state = states.compress_state(states.pack_state(mesh))
        del made, mesh
        runs: list[dict[str, Any]] = []
        self._export(state, textures, runs)
        return {"seconds": runs[0]["seconds"], "stages": _exported(runs[0])}

    def _export(self, state: bytes, textures: str, made: list[dict[str, Any]]) -> JobOutput:
        largest = {"decimation_target": 1_000_000, "texture_size": 4096, "texture_format": textures}
        settings = ExtractSettings.model_validate(largest | self.size.extraction)
        return timed(self.size, made, partial(self.generator.extract_glb, state, settings, Monitor()))


def _exported(part: dict[str, Any]) -> dict[str, float]:
    stages = {("read state" if k == "state" else k): s for k, s in part["stages"].items()}
    return _whole(stages, part["seconds"], "rest of the export")


def _whole(stages: dict[str, float], seconds: float, rest: str) -> dict[str, float]:
    return stages | {rest: seconds - sum(stages.values())}


def measure(bench: Bench, draws: int, seconds: float) -> dict[str, list[Run]]:
    """Runs by what is made, in rounds; none begins after `seconds`. The very first asset and the very first
    frayed export, which compile kernels, are kept apart."""
    rows: dict[str, Callable[[], Run]] = {
        f"picture to GLB, {quality}, {textures}": partial(bench.asset, quality, textures)
        for quality, textures in TARGETS
    }
    rows[FRAYED] = partial(bench.frayed, "webp")
    first = {f"{name}, the first of the process": rows[name] for name in (next(iter(rows)), FRAYED)}
    began = time.monotonic()
    runs: dict[str, list[Run]] = {}
    for name, make in [*first.items(), *(row for _ in range(draws) for row in rows.items())]:
        if time.monotonic() - began > seconds:
            break
        run = make()
        runs.setdefault(name, []).append(run)
        stages = "; ".join(f"{stage} {value:.2f}" for stage, value in run["stages"].items())
        print(f"{name} {run['seconds']:.2f} s: {stages}", flush=True)
    return runs


def table(runs: dict[str, list[Run]]) -> str:
    """A line a stage and row."""
    lines = []
    for name, found in runs.items():
        lines.append(f"{name}: {_times(run['seconds'] for run in found)} s")
        lines += [
            f"    {stage:24} {_times(run['stages'].get(stage, 0.0) for run in found)}"
            for stage in found[0]["stages"]
        ]
    return "\n".join(lines)


def _times(seconds: Any) -> str:
    return " ".join(f"{value:7.3f}" for value in seconds)


def records(runs: dict[str, list[Run]]) -> list[Record]:
    rows = []
    for name, found in runs.items():
        target = next((t for (q, f), t in TARGETS.items() if name == f"picture to GLB, {q}, {f}"), None)
        stages = {stage: [run["stages"].get(stage, 0.0) for run in found] for stage in found[0]["stages"]}
        note = "; ".join(f"{stage} {statistics.median(seconds):.2f}" for stage, seconds in stages.items())
        median = statistics.median(run["seconds"] for run in found)
        rows.append(Record(name, median, "s", target, f"{len(found)} draws; {note}"))
    return rows


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.whole_asset", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny networks and objects on the CPU")
    parser.add_argument("--draws", type=int, default=DRAWS, help="objects a row")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin nothing more after so long"
    )
    parser.add_argument("--json", type=Path, help="where the figures go; else benchmarks/results")
    options = parser.parse_args()
    size = TINY if options.tiny else FULL
    if size.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: skipped (--tiny runs on the CPU)")
        return 0
    began = time.monotonic()
    with TemporaryDirectory() as made:
        make_objects(size, Path(made), [KIND] * (1 + options.draws * len(TARGETS)))
        print(f"objects {time.monotonic() - began:.1f} s", flush=True)
        bench = Bench(size, Path(made))
        print(f"networks {time.monotonic() - began:.1f} s", flush=True)
        runs = measure(bench, options.draws, options.seconds - (time.monotonic() - began))
    rows = records(runs)
    path = options.json or (None if options.tiny else RESULTS)
    if path is not None:
        stamp = {
            "machine": device_name(size.device),
            "date": time.strftime("%Y-%m-%d"),
            "name": "gpu-whole-asset",
        }
        entry = stamp | {"records": [dataclasses.asdict(row) for row in rows], "measured": runs}
        path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    print(table(runs))
    for row in rows:
        met = {None: "", True: "ok", False: "MISSED"}[row.met]
        target = "" if row.target is None else f"<= {row.target:g}"
        print(f"{row.name:64} {row.value:7.2f} s {target:7} {met}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
