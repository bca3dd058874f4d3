"""`python -m benchmarks [--gpu] [name ...]`: run each benchmark and write benchmarks/RESULTS.md.

A process each, so that peak memory belongs to that benchmark alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from .record import Record

CPU = (
    "model",
    "convert",
    "mesh",
    "render",
    "glb",
    "files",
    "state",
    "gateway",
    "streams",
    "fuzz",
    "client",
    "pipeline",
    "loading",
)
LONG = ("schema", "page")
"""Run only when named; their results stay in the table."""

GPU = ("gpu",)
GPU_PARTS = ("gpu-lengths", "gpu-fast", "gpu-whole-asset")
"""Run apart since the last whole run: sections of `python -m benchmarks.gpu --json`, and whole assets."""

FOLDER = Path(__file__).parent


def machine() -> str:
    """One line about this computer."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def run_one(name: str) -> list[Record]:
    """Run one benchmark in a fresh process; raises CalledProcessError when it fails."""
    code = (
        f"import json,dataclasses;from benchmarks import {name} as m;"
        "print('RECORDS '+json.dumps([dataclasses.asdict(r) for r in m.run()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RECORDS "))
    return [Record(**fields) for fields in json.loads(line.removeprefix("RECORDS "))]


def table(title: str, records: list[Record]) -> str:
    rows = [f"### {title}", "", "| figure | measured | target | met | note |", "|---|---|---|---|---|"]
    for r in records:
        sign = "≥" if r.at_least else "≤"
        target = "" if r.target is None else f"{sign} {r.target:g} {r.unit}"
        met = {None: "", True: "yes", False: "**no**"}[r.met]
        rows.append(f"| {r.name} | {r.value:.4g} {r.unit} | {target} | {met} | {r.note} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these benchmarks")
    parser.add_argument("--gpu", action="store_true", help="the GPU benchmarks; skips without CUDA")
    options = parser.parse_args()
    if options.gpu:
        import torch

        if not torch.cuda.is_available():
            print("no CUDA device: GPU benchmarks skipped")
            return 0
    known = GPU if options.gpu else CPU
    names = options.names or list(known)
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    for name in names:
        print(f"{name} ...", flush=True)
        records = run_one(name)
        stamp = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "name": name}
        entry = stamp | {"records": [dataclasses.asdict(r) for r in records]}
        (results / f"{name}.json").write_text(json.dumps(entry, indent=1) + "\n")
        print(table(name, records))
    write_results(results)
    return 0


def write_results(results: Path) -> None:
    """RESULTS.md from every stored result, so that one benchmark can be run again alone."""
    parts = [
        "# Measured figures",
        "",
        "Written by `make bench` and `make bench-gpu`.",
        "",
    ]
    for name in CPU + LONG + GPU + GPU_PARTS:
        path = results / f"{name}.json"
        if not path.exists():
            continue
        entry = json.loads(path.read_text())
        parts.append(table(name, [Record(**r) for r in entry["records"]]))
        parts.append(f"{entry['date']}, {entry['machine']}\n")
    (FOLDER / "RESULTS.md").write_text("\n".join(parts))


if __name__ == "__main__":
    sys.exit(main())
