"""2,000 generated requests to every operation of the API, half of them wrong. Minutes: run it by its name."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from schemathesis import GenerationMode

from benchmarks.record import Record
from tests.trellis2_modal.service.schema_cases import exercise, exercised_server

CASES = 1_000
"""Of each kind: requests as the document asks for them, and requests that break it."""


def run() -> list[Record]:
    """Requests sent to each operation and the statuses that came back; fails on the first server error."""
    answered: dict[str, Counter[int]] = {}
    with tempfile.TemporaryDirectory() as folder, exercised_server(Path(folder)) as api:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for operation, statuses in exercise(api, mode, CASES).items():
                answered.setdefault(operation, Counter()).update(statuses)
    records = []
    for operation, statuses in sorted(answered.items()):
        note = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
        sent = f"of {statuses.total():,} requests"
        errors = sum(count for status, count in statuses.items() if status >= 500 and status != 503)
        records.append(Record(f"{operation}, server errors", errors, sent, 0, note))
    return records
