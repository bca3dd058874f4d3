"""What the engine stands on: a table of jobs, a runner of jobs, and the files that jobs take and leave.

There are two sets of these: SQLite, a worker process and a folder on this machine (`jobs.local`); tables,
calls of the GPU class and their results on Modal (`jobs.modal`). Every method may raise
`UnavailableError` or `StorageFullError`: the engine tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..protocol.events import Data
from ..protocol.replies import JobEvent, JobState, ProgressReport, ViewSupport
from .job import Event, Job

ACTIVE: tuple[JobState, ...] = ("queued", "running")
WITHOUT_FILES: tuple[JobState, ...] = ("failed", "cancelled", "expired")
"""States of jobs of which no file is kept."""


@dataclass(frozen=True)
class Capabilities:
    """What the loaded weights can do. `state` is starting, ready, degraded or stopping.

    `samplers` are the weights' own sampler settings by request field, `reason` says why it is degraded,
    `backends` is the implementation of each operation, as far as it is known, `texture_types` the resolutions
    at which meshes can be textured, `default_type` the pipeline type that the weights name as theirs.
    """

    model: str = ""
    device: str = ""
    pipeline_types: tuple[str, ...] = ()
    state: str = "starting"
    samplers: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    backends: dict[str, str] = field(default_factory=dict)
    views: ViewSupport = field(default_factory=ViewSupport)
    texture_types: tuple[str, ...] = ()
    default_type: str = ""


@dataclass(frozen=True)
class Artifact:
    """A file of a finished job: on disk (`path`) or in memory (`data`)."""

    name: str
    media_type: str
    size: int
    etag: str
    path: Path | None = None
    data: bytes | None = None

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` (inclusive) to `stop` (exclusive, None for the end)."""
        stop = self.size if stop is None else stop
        if self.data is not None:
            return self.data[start:stop]
        if self.path is None:
            raise ValueError(f"artifact {self.name} has neither data nor a path")
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


@dataclass(frozen=True)
class Query:
    """Jobs of an owner, with certain states, that ended within a span of time, or whose files are expired."""

    owner: str | None = None
    states: Sequence[JobState] = ()
    ended_after: float | None = None
    ended_before: float | None = None
    expired_at: float | None = None


class JobTable(Protocol):
    """Jobs and their events, by insertion. What is stored survives this process, except in the double."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def insert(self, job: Job, event: Event) -> Job:
        """Store a job if there is none of its id; returns the one that is there now."""

    async def get(self, job_id: str) -> Job | None: ...

    async def swap(self, old: Job, new: Job, event: Event | None = None) -> bool:
        """Put `new` (one version on) in the place of `old`, with its event; False when that has changed."""

    async def query(self, query: Query) -> list[Job]:
        """Oldest first."""

    async def page(self, owner: str, limit: int, before: Job | None) -> list[Job]:
        """The owner's jobs, newest first, older than `before`."""

    async def counts(self) -> dict[str, int]:
        """Jobs by status."""

    async def ids(self) -> set[str]:
        """The jobs that may have files."""

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Remove jobs and their events."""

    async def report(self, job_id: str, events: Sequence[Event]) -> None:
        """Add progress."""

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """The first events with an id above `after`; ids count from 1 and never change."""


@dataclass(frozen=True)
class Run:
    """What a runner knows of a job.

    `seconds` is what it has used under its handle. `lost`: the worker is gone, for `reason`; the job may run
    again unless `final`.
    """

    state: Literal["waiting", "running", "finished", "failed", "cancelled", "lost"]
    attempt: int = 1
    started: float | None = None
    seconds: float = 0.0
    progress: ProgressReport | None = None
    problem: dict[str, Any] | None = None
    reason: str = ""
    final: bool = False


class Runner(Protocol):
    """Runs jobs one after another, or (`eager`) hands each on to a platform that has a queue of its own."""

    eager: bool

    @property
    def restarts(self) -> int:
        """Workers that ended and were replaced."""

    def capabilities(self) -> Capabilities:
        """What can be asked for. Must be cheap: it is read on every request."""

    def idle(self) -> bool:
        """Whether a job can be started now."""

    async def open(self, wake: Callable[[], None]) -> None:
        """`wake` is called when something has changed."""

    async def close(self) -> None:
        """Release everything."""

    async def start(self, job: Job, source: Job | None) -> str:
        """Take a job; returns the handle."""

    async def poll(self, job: Job) -> tuple[Run, list[Event]]:
        """Where a started job stands, and the events that the table needs: see its `report`."""

    async def cancel(self, job: Job) -> None:
        """Ask a started job to stop."""


@dataclass(frozen=True)
class Published:
    """A result as `JobResult` has it, the seconds that it took, and when it was ready, if that is known."""

    result: Data
    seconds: float
    finished: float | None = None


class Artifacts(Protocol):
    """What jobs take and leave."""

    async def keep_input(self, job_id: str, payload: bytes | None) -> None:
        """Hold what was sent until the job has ended. Raises `StorageFullError`."""

    async def published(self, job: Job) -> Published | None:
        """What a job that ran to its end left; None for nothing."""

    async def read(self, job: Job, name: str) -> Artifact | None:
        """Raises `ExpiredError` when nothing of the job is kept any longer."""

    async def early(self, job: Job, name: str) -> Artifact | None:
        """A file that a job has handed over while it still runs; None where there is none yet, or never."""

    async def drop_input(self, job_id: str) -> None: ...

    async def discard(self, job_id: str) -> None:
        """Remove every file of a job."""

    async def tidy(self, known: set[str], age: float) -> None:
        """Remove what belongs to no job and is older than `age` seconds: an input comes before its job."""


@dataclass(frozen=True)
class QueueStats:
    """For /health and /metrics; `totals` counts jobs by final state since the store was made."""

    queued: int = 0
    running: int = 0
    limit: int = 0
    worker_restarts: int = 0
    totals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Charge:
    """Accelerator seconds that one job used, at a Unix time."""

    job: str
    time: float
    seconds: float
