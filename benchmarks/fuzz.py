"""100,000 mutated states and pictures through the parsers: see `tests.trellis2_modal.service.fuzz`."""

from __future__ import annotations

from benchmarks.record import Record
from tests.trellis2_modal.service.fuzz import SLOWEST, fuzz, peak_memory
from trellis2_modal.protocol.limits import MAX_STATE_RAW_BYTES

CASES = 100_002
"""Divides by the number of parsers."""


def run() -> list[Record]:
    """What every parser did, the slowest case, and how far memory grew beyond what it was before."""
    before = peak_memory()
    findings = fuzz(CASES)
    grown = (peak_memory() - before) / 1e6
    outcomes = ", ".join(f"{name} {count:,}" for name, count in sorted(findings.outcomes.items()))
    for fault in findings.faults:
        print(fault)
    return [
        Record("faults", len(findings.faults), f"of {CASES:,} cases", 0, outcomes),
        Record("slowest case", findings.slowest, "s", SLOWEST),
        Record("memory grew by at most", grown, "MB", MAX_STATE_RAW_BYTES / 1e6),
    ]
