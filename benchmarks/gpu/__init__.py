"""Every stage at the published model sizes on a GPU, with random weights: `python -m benchmarks.gpu`.

A section a module; each has `run(bench)`, which adds records as it measures. Start reading at `session.py`.
"""

from __future__ import annotations

from benchmarks.record import Record

from .session import Session


def run() -> list[Record]:
    """All sections; what `python -m benchmarks --gpu` calls. Raises RuntimeError when one failed."""
    session = Session()
    session.run_all()
    if session.failures:
        raise RuntimeError(f"sections failed: {', '.join(session.failures)}")
    return session.records
