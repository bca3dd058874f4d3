"""Progress of a job on a terminal: one bar a stage, a plain line a stage where there is no terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from ..client.stages import EXPORT_STAGES, Tracker, duration, stage_title
from ..protocol.replies import JobEvent

WIDTH = 24


class Bars:
    """Called with each event of a job. Draws on `stream` (stderr), never on stdout."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._quiet = quiet
        self._tracker = Tracker()
        self._drawn = ""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, as seen from here."""
        return self._tracker.seconds

    def __call__(self, event: JobEvent) -> None:
        tracker = self._tracker
        stage, before = tracker.stage, dict(tracker.seconds)
        tracker.feed(event)
        if self._quiet:
            return
        for name, seconds in tracker.seconds.items():
            if seconds != before.get(name) and name == stage:
                bar = f"{self._bar(1.0)} " if self._live else ""
                self._line(f"{bar}{stage_title(name)}, {seconds:.1f} s", final=True)
        if event.type == "queued" and tracker.position:
            self._line(f"Waiting: {tracker.position} ahead", final=not self._live)
        elif event.type == "restarted":
            self._line("The worker ended and the job starts again", final=True)
        elif event.type == "progress" and self._live:
            steps = "" if tracker.stage in EXPORT_STAGES else f", step {tracker.step} of {tracker.steps}"
            text = f"{self._bar(tracker.fraction)} {stage_title(tracker.stage)}{steps}"
            self._line(f"{text}, {duration(tracker.elapsed)}")

    def _bar(self, fraction: float) -> str:
        full = round(fraction * WIDTH)
        return "[" + "#" * full + "." * (WIDTH - full) + "]"

    def _line(self, text: str, final: bool = False) -> None:
        if not self._live:
            self._stream.write(text + "\n")
        else:
            columns = shutil.get_terminal_size().columns - 1
            padding = " " * max(0, len(self._drawn) - len(text))
            self._stream.write("\r" + (text + padding)[:columns] + ("\n" if final else ""))
            self._drawn = "" if final else text
        self._stream.flush()
