"""How far a job is, and how long it will still take."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..protocol.events import Cancelled, Queued, Restarted, Started, payload_of
from ..protocol.replies import JobEvent, JobResult, JobStatus, Problem, ProgressReport
from ..protocol.stages import EXPORT_PHASES, EXPORT_STAGES, PHASES, STAGES, TEXTURE_PHASES, stage_title


def phases_of(job: JobProgress) -> list[tuple[str, str]]:
    """Each phase with done, now or next; empty while nothing runs."""
    if not job.stage:
        return []
    table = PHASES if any(job.stage in stages for stages in PHASES.values()) else EXPORT_PHASES
    if "encode_shape" in (job.stage, *job.seconds):
        table = TEXTURE_PHASES  # new textures begin by reading the mesh
    elif table is PHASES and job.stage == "state" and not job.seconds:
        table = EXPORT_PHASES  # an export begins by unpacking the state
    current = next((i for i, stages in enumerate(table.values()) if job.stage in stages), 0)
    states = ["done" if i < current else "now" if i == current else "next" for i in range(len(table))]
    return list(zip(table, states, strict=True))


@dataclass
class JobProgress:
    """Follows the events of one job: stage, step, time spent, time left.

    `expected` holds seconds by stage of an earlier job of the same kind; without it only the running stage
    can be extrapolated, and the time left is unknown.
    """

    expected: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    state: str = "sending"
    stage: str = ""
    step: int = 0
    steps: int = 0
    message: str = ""
    position: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent by stage, the running one not included."""

    def __post_init__(self) -> None:
        self.began = self.clock()
        self._stage_began = self.began

    def snapshot(self) -> JobProgress:
        """A copy that later events do not change."""
        twin = copy.copy(self)
        twin.seconds = dict(self.seconds)
        return twin

    def began_at(self, time_of_day: datetime) -> None:
        """The job is older than this object: time spent counts from then on."""
        age = (datetime.now(UTC) - time_of_day).total_seconds()
        self.began = min(self.began, self.clock() - max(0.0, age))

    def feed(self, event: JobEvent) -> None:
        """Take an event in."""
        match payload_of(event):
            case ProgressReport() as report:
                self.state = "running"
                if report.stage != self.stage:
                    self._close_stage()
                self.stage, self.step, self.steps = report.stage, report.step, report.steps
                self.message = report.message
            case Queued(position=position):
                self.state, self.position = "queued", position
            case Started():
                self._begin("running")
            case Restarted(reason=reason):
                self._begin("queued", reason)
            case JobResult() | Problem() | Cancelled():
                self._close_stage()
                self.state = "finished" if event.type == "result" else event.type

    def _begin(self, state: str, message: str = "") -> None:
        self._close_stage()
        self.state, self.stage, self.step, self.steps, self.message = state, "", 0, 0, message

    def _close_stage(self) -> None:
        now = self.clock()
        if self.stage:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self._stage_began
        self._stage_began = now

    @property
    def elapsed(self) -> float:
        return self.clock() - self.began

    @property
    def fraction(self) -> float:
        """Part of the running stage that is done."""
        if not self.steps or self.stage in EXPORT_STAGES:
            return 0.0
        return min(1.0, self.step / self.steps)

    def left(self) -> float | None:
        """Seconds that the job will probably still take; None when nothing is known."""
        if self.state != "running" or not self.expected or not self.stage:
            return None
        spent = self.clock() - self._stage_began
        whole = self.expected.get(self.stage, 0.0)
        if self.fraction > 0.2:
            whole = spent / self.fraction
        names = list(self.expected)
        later = names[names.index(self.stage) + 1 :] if self.stage in names else names
        ahead = sum(self.expected[name] for name in later if name not in self.seconds)
        return max(0.0, whole - spent) + ahead

    def overall(self) -> float:
        """Part of the whole job that is done, as far as it can be told; never quite 1 before the end."""
        if self.state == "finished":
            return 1.0
        left = self.left()
        spent = sum(self.seconds.values()) + (self.clock() - self._stage_began if self.stage else 0.0)
        if left is not None and spent + left > 0:
            return min(0.99, spent / (spent + left))
        if self.stage in EXPORT_STAGES and self.steps:
            return min(0.99, self.step / self.steps)
        known = [name for name in STAGES if name in self.seconds or name == self.stage]
        order = list(STAGES)
        if not known:
            return 0.0
        return min(0.99, (order.index(known[-1]) + self.fraction) / len(order))


def status_text(job: JobStatus) -> str:
    """Where a job is: running, Generating the shape 3/12."""
    if job.status == "queued" and job.position is not None:
        return f"queued, {job.position} ahead"
    if job.status == "running" and job.progress:
        return f"running, {stage_title(job.progress.stage)} {job.progress.step}/{job.progress.steps}"
    return job.status


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 1 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def size_text(size: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
