"""What `quality="fast"` costs in quality, on held-out objects: `python -m benchmarks.quality --objects 128`.

Each object is made three times from one picture: exact, fast with the same noise, and exact with other
noise. Fast passes where it is no further from the exact run, and from the truth, than the other noise is.
The bundled weights and the trainer's world (`training/`) are used.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "o-voxel"), str(ROOT / "training")]

WEIGHTS = ROOT / "assets" / "weights" / "trellis2-mini"
OTHER_NOISE = 10_000  # added to an object's seed
POINTS = 20_000
SCORES = {"f_002": 1.0, "f_005": 1.0, "visible_base_color_mae": -1.0}  # and whether more is better
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # also in the processes


def silhouette_iou(a: Any, b: Any) -> float:
    """Of two assets' voxels, seen along the three axes."""
    size = round(1 / a.voxel_size)
    found = []
    for axes in ((0, 1), (0, 2), (1, 2)):
        pictures = []
        for asset in (a, b):
            seen = torch.zeros(size, size, dtype=torch.bool)
            seen[tuple(asset.coords.cpu().long()[:, axis] for axis in axes)] = True
            pictures.append(seen)
        both, any_ = pictures[0] & pictures[1], pictures[0] | pictures[1]
        found.append(float(both.sum() / any_.sum()))
    return float(np.mean(found))


def measure(objects: Sequence[int], device: str, seconds: float) -> list[dict[str, Any]]:
    """A row an object (0: the first held-out one), while `seconds` last."""
    from trellis2_training import world
    from trellis2_training.data.voxelize import voxelize
    from trellis2_training.evaluation import measures
    from trellis2_training.evaluation.evaluate import asset_scores, held_out_picture, to_rgba, true_mesh

    from trellis2.pipelines import Trellis2ImageTo3DPipeline

    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(WEIGHTS, device=device, skip=("rembg_model",))
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for i in objects:
        if rows and time.monotonic() - started > seconds:
            break
        number = world.HELD_OUT_SEED + i
        table = torch.from_numpy(world.object_table(number))
        target = measures.surface_points(*true_mesh(voxelize(table, 512)), POINTS, _generator(number))
        _, picture = held_out_picture(table, number)
        kinds = {"exact": (i, "exact"), "fast": (i, "fast"), "other": (i + OTHER_NOISE, "exact")}
        assets, row = {}, {"number": number}
        for name, (seed, quality) in kinds.items():
            passes: dict[str, Any] = {}
            began = time.perf_counter()
            (assets[name],) = pipeline.run(
                to_rgba(picture), seed=seed, pipeline_type="512", quality=quality, passes=passes
            )
            row[name] = {
                "seconds": time.perf_counter() - began,
                "passes": sum(p.conditional + p.null for p in passes.values()),
                **asset_scores(assets[name], picture, target, _generator(number)),
            }
        for name in ("fast", "other"):
            a, b = (
                measures.surface_points(x.vertices, x.faces, POINTS, _generator(number))
                for x in (assets["exact"], assets[name])
            )
            f_002, f_005 = measures.f_scores(a, b, (0.02, 0.05))
            near = {
                "f_002": f_002,
                "f_005": f_005,
                "silhouette": silhouette_iou(assets["exact"], assets[name]),
            }
            row[f"{name} to exact"] = near
        rows.append(row)
        log.info("%s", json.dumps(row))
    return rows


def measure_side_by_side(objects: int, device: str, seconds: float, processes: int) -> list[dict[str, Any]]:
    """The same by several processes, which take the objects in turn; rows in the objects' order."""
    if processes == 1:
        return measure(range(objects), device, seconds)
    shares = [range(k, objects, processes) for k in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(measure, share, device, seconds) for share in shares]
        rows = [row for part in made for row in part.result()]
    return sorted(rows, key=lambda row: row["number"])


def _generator(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, and whether fast keeps within what other noise changes."""

    def mean(kind: str, name: str) -> float:
        return float(np.mean([row[kind][name] for row in rows]))

    def spread(kind: str, name: str) -> float:
        return float(np.mean([abs(row["exact"][name] - row[kind][name]) for row in rows]))

    summary: dict[str, Any] = {"objects": len(rows)}
    gates = []
    for name, sign in SCORES.items():
        loss = sign * (mean("exact", name) - mean("fast", name))
        figures = {kind: mean(kind, name) for kind in ("exact", "fast", "other")}
        figures |= {
            "loss": loss,
            "spread of fast": spread("fast", name),
            "spread of noise": spread("other", name),
        }
        summary[name] = figures
        gates.append(loss <= figures["spread of noise"])
    for name in ("f_002", "f_005", "silhouette"):
        near = {kind: mean(f"{kind} to exact", name) for kind in ("fast", "other")}
        summary[f"to exact, {name}"] = near
        gates.append(near["fast"] >= near["other"])
    summary["passes"] = {kind: mean(kind, "passes") for kind in ("exact", "fast")}
    summary["seconds"] = {kind: mean(kind, "seconds") for kind in ("exact", "fast")}
    summary["passed"] = all(gates)
    return summary


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--objects", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no object after so long")
    parser.add_argument("--processes", type=int, default=1, help="side by side, each with its own pipeline")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "quality.json")
    options = parser.parse_args()
    rows = measure_side_by_side(options.objects, options.device, options.seconds, options.processes)
    summary = summarise(rows)
    options.json.write_text(json.dumps({"summary": summary, "objects": rows}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    return 0 if summary["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
