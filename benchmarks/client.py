"""The client's start: what importing it costs a fresh interpreter, and whether the model comes along."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from .record import Record

RUNS = 5
CODE = """
import json, sys, time
start, processor = time.perf_counter(), time.process_time()
import trellis2_modal.client.api
heavy = {"torch", "trellis2", "o_voxel", "gradio", "warp"} & set(sys.modules)
print(json.dumps([time.perf_counter() - start, time.process_time() - processor, sorted(heavy)]))
"""


def run() -> list[Record]:
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", CODE])) for _ in range(RUNS)]
    heavy = ", ".join(runs[0][2]) or "no torch, no Gradio"
    note = f"median of {RUNS} fresh processes; {heavy}"
    return [
        Record("import of the client", median(r[0] for r in runs), "s", 0.5, note),
        Record("import of the client, processor", median(r[1] for r in runs), "s", None),
    ]
