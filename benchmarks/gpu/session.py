"""One run over the sections: a time budget, failures kept apart, results written after every section."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Record

SECTIONS = (
    "limits",
    "attention",
    "attention_lengths",
    "layers",
    "flows",
    "products",
    "convolution",
    "decode",
    "sampling",
    "lengths",
    "profile",
    "geometry",
    "peaks",
    "memory",
)
REST_SECONDS = 1.0
RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"


class SkippedError(Exception):
    """A section that cannot run here, and why."""


@dataclass
class Limits:
    """What this device measured: products in FLOP/s (bfloat16) and copies in bytes/s, read plus written."""

    flops: float = float("nan")
    bytes: float = float("nan")


@dataclass
class Session:
    """Sections in order, until the budget (seconds) is spent."""

    sections: Iterable[str] = SECTIONS
    budget: float = float("inf")
    path: Path = RESULTS
    only: str = ""  # a regular expression: parts of sections whose names it does not find are left out
    records: list[Record] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds of the budget that remain."""
        return self.budget - (time.monotonic() - self._started)

    def run_all(self) -> None:
        for name in self.sections:
            torch.manual_seed(0)  # the same weights and inputs whatever ran before
            if self.left <= 0:
                self.skipped[name] = f"the budget of {self.budget:.0f} s was spent"
                continue
            started = time.monotonic()
            print(f"{name} ...", flush=True)
            try:
                importlib.import_module(f"benchmarks.gpu.{name}").run(self)
            except SkippedError as reason:
                self.skipped[name] = str(reason)
            except Exception as error:  # a section's failure must not cost the others
                self.failures[name] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
            self.seconds[name] = round(time.monotonic() - started, 1)
            print(f"{name} {self.seconds[name]} s", flush=True)
            torch.cuda.empty_cache()
            self.write()

    def add(
        self,
        name: str,
        value: float,
        unit: str = "ms",
        target: float | None = None,
        note: str = "",
        at_least: bool = False,
    ) -> None:
        """Keep one figure."""
        self.records.append(Record(name, value, unit, target, note, at_least))

    def attempt(self, name: str, call: Callable[[], None]) -> None:
        """A part of a section; its failure is kept under its own name and the section goes on."""
        if not re.search(self.only, name):
            return
        if self.left <= 0:
            self.skipped[name] = "the budget was spent"
            return
        try:
            call()
        except SkippedError as reason:
            self.skipped[name] = str(reason)
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {error}"[:500]
            traceback.print_exc()
            torch.cuda.empty_cache()

    def share(self, milliseconds: float, flops: float = 0.0, bytes: float = 0.0) -> str:
        """A note: the work, its rate, and the share of the measured limit."""
        seconds = milliseconds / 1e3
        parts = []
        if flops:
            parts.append(
                f"{flops / 1e12:.2f} TFLOP, {flops / seconds / 1e12:.0f} TFLOP/s "
                f"({flops / seconds / self.limits.flops:.0%})"
            )
        if bytes:
            parts.append(f"{bytes / seconds / 1e9:.0f} GB/s ({bytes / seconds / self.limits.bytes:.0%})")
        return "; ".join(parts)

    def write(self) -> None:
        """The JSON as it stands."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {
            "machine": machine(),
            "date": time.strftime("%Y-%m-%d"),
            "name": "gpu",
            "records": [dataclasses.asdict(r) for r in self.records],
            "seconds": self.seconds,
            "skipped": self.skipped,
            "failures": self.failures,
            "detail": self.detail,
        }
        self.path.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")

    def table(self) -> str:
        """Plain lines, for the end of a log."""
        lines = [machine()]
        for r in self.records:
            met = {None: "", True: "ok", False: "MISSED"}[r.met]
            target = "" if r.target is None else f"{'>=' if r.at_least else '<='} {r.target:g}"
            lines.append(f"{r.name:58} {r.value:9.4g} {r.unit:8} {target:9} {met:6} {r.note}".rstrip())
        lines += [f"skipped {name}: {why}" for name, why in self.skipped.items()]
        lines += [f"FAILED {name}: {why}" for name, why in self.failures.items()]
        lines.append("seconds: " + ", ".join(f"{name} {s:g}" for name, s in self.seconds.items()))
        return "\n".join(lines)


def machine() -> str:
    """The device and the software, in a line."""
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    return f"{properties.name}, {memory:.0f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}"


def plain_torch() -> AbstractContextManager[None]:
    """Everything by torch's own operations, as without the packages that make it fast."""
    return environment(ELEMENTWISE_BACKEND="torch", ATTN_BACKEND="sdpa", SPARSE_CONV_BACKEND="torch")


def unrecorded() -> AbstractContextManager[None]:
    """Flows without CUDA graphs."""
    return environment(TRELLIS2_CUDA_GRAPHS="0")


@contextmanager
def environment(**forced: str) -> Iterator[None]:
    """Environment variables set for a while."""
    before = {name: os.environ.get(name) for name in forced}
    os.environ.update(forced)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def device_ms(call: Callable[[], Any], repeats: int = 10, warmup: int = 3) -> float:
    """Median milliseconds between CUDA events around a call."""
    for _ in range(warmup):
        call()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, stop in marks:
        start.record()
        call()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in marks)


def rested_ms(call: Callable[[], Any], clock: Callable[[Callable[[], Any]], float]) -> float:
    """Median of three calls by `clock`, each after a rest: a card at its power limit lowers its clock."""
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        time.sleep(REST_SECONDS)
        times.append(clock(call))
    return statistics.median(times)


def wall_ms(call: Callable[[], Any]) -> float:
    """Milliseconds of one call until the device is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def peak_gb(call: Callable[[], Any]) -> float:
    """Most memory (10^9 bytes) that torch had allocated during a call, what was there before included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9
