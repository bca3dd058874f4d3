"""Progress of a job on a terminal: one bar a stage, a plain line a stage where there is no terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from ..client.stages import JobProgress, duration
from ..protocol.events import Queued, Restarted, Started, payload_of
from ..protocol.replies import JobEvent, ProgressReport
from ..protocol.stages import EXPORT_STAGES, stage_title

WIDTH = 24
"""Of a bar; a narrow terminal has less room for it, or none."""

TEXT = 64
"""Columns that the words beside it take."""


class Bars:
    """Called with each event of a job. Draws on `stream` (stderr), never on stdout.

    `forecast` gives seconds by stage; it is asked once, when the job starts on a terminal, and then what is
    left is said too.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        quiet: bool = False,
        forecast: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._forecast = forecast
        self._job = JobProgress()
        self._drawn = ""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, as seen from here."""
        return self._job.seconds

    def __call__(self, event: JobEvent) -> None:
        job = self._job
        stage, before = job.stage, dict(job.seconds)
        job.feed(event)
        if self._quiet:
            return
        for name, seconds in job.seconds.items():
            if seconds != before.get(name) and name == stage:
                bar = self._bar(1.0) if self._live else ""
                self._line(f"{bar}{stage_title(name)}, {seconds:.1f} s", final=True)
        match payload_of(event):
            case Queued(position=int(ahead)) if ahead:
                self._line(f"Waiting: {ahead} ahead", final=not self._live)
            case Started() if self._live and self._forecast is not None:
                job.expected, self._forecast = self._forecast(), None
            case Restarted():
                self._line("The worker ended and the job starts again", final=True)
            case ProgressReport(stage=stage, step=step, steps=steps) if self._live:
                of = "" if stage in EXPORT_STAGES or steps == 1 else f", step {step} of {steps}"
                text = f"{self._bar(job.fraction)}{stage_title(stage)}{of}"
                left = job.left()
                after = f", about {duration(left)} left" if left else ""
                self._line(f"{text}, {duration(job.elapsed)}{after}")

    def _bar(self, fraction: float) -> str:
        width = min(WIDTH, shutil.get_terminal_size().columns - TEXT)
        full = round(fraction * width)
        return f"[{'#' * full}{'.' * (width - full)}] " if width > 4 else ""

    def _line(self, text: str, final: bool = False) -> None:
        if not self._live:
            self._stream.write(text + "\n")
        else:
            columns = shutil.get_terminal_size().columns - 1
            padding = " " * max(0, len(self._drawn) - len(text))
            self._stream.write("\r" + (text + padding)[:columns] + ("\n" if final else ""))
            self._drawn = "" if final else text
        self._stream.flush()
