"""Seconds by stage of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trellis2.progress import Monitor, Progress

from ..jobs.execution import JobMonitor


class StageClock:
    """Seconds by stage, read off the progress reports that pass through `monitor`."""

    def __init__(self, outer: Monitor) -> None:
        self._outer = outer
        self._seconds: dict[str, float] = {}
        self._current: str | None = None
        self._since = time.perf_counter()
        self.monitor = Monitor(self._report, outer.cancel)
        self.early = outer.early if isinstance(outer, JobMonitor) else None

    def _report(self, progress: Progress) -> None:
        self._switch(progress.stage)
        if self._outer.progress is not None:
            self._outer.progress(progress)

    def _switch(self, stage: str | None) -> None:
        now = time.perf_counter()
        if self._current is not None:
            self._seconds[self._current] = self._seconds.get(self._current, 0.0) + now - self._since
        self._current, self._since = stage, now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._switch(name)
        yield
        self._switch(None)

    def seconds(self) -> dict[str, float]:
        """Stage to seconds, rounded to milliseconds."""
        self._switch(None)
        return {name: round(value, 3) for name, value in self._seconds.items()}
