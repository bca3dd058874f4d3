"""From a picture to a GLB of 1 M faces with 4096 textures: `python -m benchmarks.gpu.whole_asset`.

The 1024 cascade, exact and fast, in a process that has made one such asset before; another object, and so
other token counts, in each request. Then the export alone of a state of which 3 % of the faces are missing,
which is rebuilt. Networks and objects are those of `first_request`. One line a stage, a column a draw:
seconds, and in brackets processor seconds of all threads; one run of some rows is watched (`watch`). `--tiny`
runs the same on a CPU, to see that it works; `--export-only` needs no networks, and runs at full size on a
CPU, too. The file of figures is written anew after each run.
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
from benchmarks.gpu.watch import Watch
from benchmarks.objects import asset_of, frayed
from benchmarks.record import Record
from trellis2.progress import Monitor, Progress
from trellis2_modal.jobs.execution import JobOutput
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings
from trellis2_modal.service import state as states
from trellis2_modal.service.generator import TRELLIS2Generator

RESULTS = Path(__file__).parents[1] / "results" / "gpu-whole-asset.json"
KIND = "1024_cascade"
DRAWS = 3
MISSING = 0.03
TARGETS = {("exact", "webp"): 9.0, ("fast", "webp"): 6.0, ("exact", "png"): 9.0}
EXPORTED = ("webp", "png", "jpeg")
WATCHED = ", watched"
FRAYED = f"export, {MISSING:.0%} of the faces missing, webp"

Run = dict[str, Any]
"""`seconds` of all, and by stage `stages` and `processor`; the export's stages follow the generation's."""


@dataclasses.dataclass
class Found:
    """By row: its runs, and the seconds of `Watch` by path."""

    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    watched: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)


class Bench:
    """One process: what it makes, and the seconds that it took."""

    def __init__(self, size: Size, folder: Path, networks: bool = True) -> None:
        self.size, self.folder = size, folder
        self.generator = TRELLIS2Generator(
            lambda: ObjectPipeline(size, read_objects(folder, size.device)), "random", size.device
        )
        if networks:
            self.generator.load_model_cpu()
        self.number = 0

    def asset(self, quality: str, textures: str) -> Run:
        """A picture's asset and its file."""
        self.number += 1
        asked = GenerateSettings.model_validate(
            {"pipeline_type": KIND, "preview": "none", "seed": self.number, "quality": quality}
        )
        run, output = self._timed(
            lambda monitor: self.generator.generate(photo(self.number), asked, monitor), "generation", "write"
        )
        export = self._export(output.files["state"].data, textures)
        return {name: run[name] | export[name] for name in ("stages", "processor")} | {
            "seconds": run["seconds"] + export["seconds"]
        }

    def export(self, textures: str, missing: float = 0.0) -> Run:
        """The file of a state, with a share of its faces missing."""
        self.number += 1
        path = sorted(self.folder.glob("*.pt"))[self.number % 2]
        made = next(iter(read_objects(path, self.size.device)))["mesh"]
        mesh = asset_of(frayed(made, missing, self.number) if missing else made)
        mesh.fill_holes()  # as the pipeline does
        state = states.compress_state(states.pack_state(mesh))
        del made, mesh
        return self._export(state, textures)

    def _export(self, state: bytes, textures: str) -> Run:
        largest = {"decimation_target": 1_000_000, "texture_size": 4096, "texture_format": textures}
        settings = ExtractSettings.model_validate(largest | self.size.extraction)
        return self._timed(
            lambda monitor: self.generator.extract_glb(state, settings, monitor), "export", "read"
        )[0]

    def _timed(self, call: Callable[[Monitor], JobOutput], what: str, state: str) -> tuple[Run, JobOutput]:
        """A call's seconds, and those of its stages, the rest of `what` included; its stage "state" is there
        to write or to read one."""
        marks: list[tuple[str, float]] = [("", time.process_time())]

        def mark(progress: Progress) -> None:
            if progress.stage != marks[-1][0]:
                marks.append((progress.stage, time.process_time()))

        made: list[dict[str, Any]] = []
        output = timed(self.size, made, lambda: call(Monitor(mark)))
        ends = [at for _, at in marks[1:]] + [time.process_time()]
        names = {"state": f"{state} state", "": f"rest of the {what}"}
        processor = {names.get(stage, stage): end - at for (stage, at), end in zip(marks, ends, strict=True)}
        stages = {names.get(stage, stage): seconds for stage, seconds in made[0]["stages"].items()}
        stages[names[""]] = made[0]["seconds"] - sum(stages.values())
        return {"seconds": made[0]["seconds"], "stages": stages, "processor": processor}, output


def rows_of(bench: Bench, export_only: bool) -> dict[str, Callable[[], Run]]:
    """What is measured, by name; the export of a frayed state is the last."""
    rows: dict[str, Callable[[], Run]] = {
        f"picture to GLB, {quality}, {textures}": partial(bench.asset, quality, textures)
        for quality, textures in TARGETS
    }
    if export_only:
        rows = {f"export, {textures}": partial(bench.export, textures) for textures in EXPORTED}
    return rows | {FRAYED: partial(bench.export, "webp", MISSING)}


def measure(
    bench: Bench, draws: int, until: float, export_only: bool, write: Callable[[Found], None]
) -> Found:
    """All rows: one of each quality to compile kernels, then draws, then one watched; the frayed export last.

    None begins that could last beyond `until` (`time.monotonic`); after each `write` gets what there is.
    """
    rows = rows_of(bench, export_only)
    *sound, frayed_row = rows
    first = sound[:1] if export_only else sound[:2]
    queue = [(f"{name}, the first of the process", rows[name], False) for name in first]
    queue += [(name, rows[name], False) for name in sound]
    queue += [(name + WATCHED, rows[name], True) for name in (sound[1], sound[-1])]
    queue += [(name, rows[name], False) for _ in range(draws - 1) for name in sound]
    queue += [(f"{frayed_row}, the first of the process", rows[frayed_row], False)]
    queue += [(frayed_row, rows[frayed_row], False)] * draws
    queue += [(frayed_row + WATCHED, rows[frayed_row], True)]
    found, longest = Found(), 0.0
    for name, make, watched in queue:
        if time.monotonic() + longest > until:
            print(f"{name}: left out, the time is over", flush=True)
            continue
        watch = Watch(bench.size.device)
        run = watch.run(make) if watched else make()
        found.runs.setdefault(name, []).append(run)
        if watched:
            found.watched[name] = dict(watch.seconds)
        if "the first" not in name:
            longest = max(longest, run["seconds"])
        stages = "; ".join(f"{stage} {value:.2f}" for stage, value in run["stages"].items())
        print(f"{name} {run['seconds']:.2f} s: {stages}", flush=True)
        if watched:
            print(watch.lines(), flush=True)
        write(found)
    return found


def table(runs: dict[str, list[Run]]) -> str:
    """A line a stage and row."""
    lines = []
    for name, found in runs.items():
        seconds = " ".join(f"{run['seconds']:.2f}" for run in found)
        lines.append(f"{name}: {seconds} s")
        for stage in found[0]["stages"]:
            times = (
                f"{run['stages'].get(stage, 0.0):8.3f} ({run['processor'].get(stage, 0.0):6.2f})"
                for run in found
            )
            lines.append(f"    {stage:24} {' '.join(times)}")
    return "\n".join(lines)


def records(runs: dict[str, list[Run]]) -> list[Record]:
    rows = []
    for name, found in runs.items():
        if name.endswith(WATCHED):
            continue
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
        "--seconds", type=float, default=float("inf"), help="begin nothing that could end later"
    )
    parser.add_argument(
        "--export-only", action="store_true", help="exports alone, of states that are made beforehand"
    )
    parser.add_argument("--json", type=Path, help="where the figures go; else benchmarks/results")
    options = parser.parse_args()
    size = TINY if options.tiny else FULL
    if size.device == "cuda" and not torch.cuda.is_available():
        if not options.export_only:
            print("no CUDA device: skipped (--tiny and --export-only run on the CPU)")
            return 0
        size = dataclasses.replace(size, device="cpu")
    began = time.monotonic()
    path = options.json or (None if options.tiny or options.export_only else RESULTS)
    stamp = {
        "machine": device_name(size.device),
        "date": time.strftime("%Y-%m-%d"),
        "name": "gpu-whole-asset",
    }

    def write(found: Found) -> None:
        if path is not None:
            rows = [dataclasses.asdict(row) for row in records(found.runs)]
            entry = stamp | {"records": rows, "measured": found.runs, "watched": found.watched}
            path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")

    with TemporaryDirectory() as made:
        # the first of each quality, the draws, one of each that is watched
        count = 2 if options.export_only else 4 + options.draws * len(TARGETS)
        make_objects(size, Path(made), [KIND] * count)
        print(f"{count} objects {time.monotonic() - began:.1f} s", flush=True)
        bench = Bench(size, Path(made), not options.export_only)
        print(f"networks {time.monotonic() - began:.1f} s", flush=True)
        found = measure(bench, options.draws, began + options.seconds, options.export_only, write)
    print(table(found.runs))
    for row in records(found.runs):
        met = {None: "", True: "ok", False: "MISSED"}[row.met]
        target = "" if row.target is None else f"<= {row.target:g}"
        print(f"{row.name:64} {row.value:7.2f} s {target:7} {met}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
