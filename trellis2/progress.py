"""How long-running calls report where they are, and how they are told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """One report: `step` of `steps` is done in `stage` (0 when the stage starts)."""

    stage: str
    step: int
    steps: int
    message: str = ""


ProgressCallback = Callable[[Progress], None]
CancelCallback = Callable[[], bool]


@dataclass(frozen=True)
class Monitor:
    """The caller's two callbacks, carried through a run, be it a pipeline's or a whole job's."""

    progress: ProgressCallback | None = None
    cancel: CancelCallback | None = None

    def check(self, where: str = "at the end") -> None:
        """Raises `Cancelled` if the caller no longer wants the result."""
        if self.cancel is not None and self.cancel():
            raise Cancelled(f"cancelled {where}")

    def report(self, stage: str, step: int, steps: int, message: str = "") -> None:
        """Tell the caller, after checking that it still wants the result. Raises `Cancelled`."""
        self.check(f"in {stage} at step {step} of {steps}")
        if self.progress is not None:
            self.progress(Progress(stage, step, steps, message))

    def labelled(self, label: str) -> Monitor:
        """The same, with a label where a report has no message of its own."""
        progress = self.progress
        if not label or progress is None:
            return self
        return replace(self, progress=lambda p: progress(p if p.message else replace(p, message=label)))
