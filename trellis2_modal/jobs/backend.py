"""The seam between the HTTP app and whatever runs the jobs: here a worker process, on Modal a GPU class.

Everything is asynchronous and every call names the owner, so that a job can only ever be reached by the key
that made it. Implementations raise the errors of `trellis2_modal.protocol.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..protocol.replies import JobEvent, JobStatus
from ..protocol.requests import JobKind


@dataclass(frozen=True)
class NewJob:
    """A validated request, ready to run.

    `settings` are the fields of `GenerateSettings` (pipeline type filled in) or `ExtractSettings` (preset
    resolved). `payload` is the encoded picture or the compressed state; an extraction may name a finished
    generation of the same owner in `source` instead. `fingerprint` is a digest of all that was asked, to tell
    a repeated request from another one under the same `idempotency_key`. `max_active` bounds the owner's
    unfinished jobs and `gpu_seconds` what its jobs may use in 24 hours; both are checked when the job is
    accepted, in one step with accepting it.
    """

    owner: str
    kind: JobKind
    settings: dict[str, Any]
    payload: bytes | None
    fingerprint: str
    source: str | None = None
    idempotency_key: str | None = None
    max_active: int = 8
    gpu_seconds: float = float("inf")


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
class Capabilities:
    """What the loaded weights can do. `state` is starting, ready, degraded or stopping."""

    model: str = ""
    device: str = ""
    pipeline_types: tuple[str, ...] = ()
    state: str = "starting"


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


class Backend(Protocol):
    """Runs jobs. Unknown ids and ids of other owners are the same `NotFoundError`."""

    async def start(self) -> None:
        """Get ready to take jobs; called once by the app's lifespan."""

    async def close(self) -> None:
        """Stop taking jobs, let the running one end or be put back, release everything."""

    def capabilities(self) -> Capabilities:
        """What can be asked for. Must be cheap: it is read on every request."""

    def stats(self) -> QueueStats:
        """Counters. Must be cheap: /health reads them."""

    async def submit(self, job: NewJob) -> JobStatus:
        """Accept a job, or return the one that the same idempotency key made before.

        Raises `ConflictError` (same key, other fingerprint), `QueueFullError`, `TooManyJobsError`,
        `QuotaExceededError`, `NotFoundError` (unknown source), `NotReadyError`, `ExpiredError`,
        `StorageFullError`, `UnavailableError`.
        """

    async def status(self, owner: str, job_id: str) -> JobStatus:
        """Raises `NotFoundError`."""

    async def list_jobs(self, owner: str, limit: int, before: str | None = None) -> list[JobStatus]:
        """The owner's jobs, newest first, older than the job `before`."""

    def events(self, owner: str, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events with an id above `after`, then new ones as they happen; ends after the final event."""

    async def result(self, owner: str, job_id: str, name: str) -> Artifact:
        """Raises `NotFoundError`, `NotReadyError`, `ExpiredError`, `JobCancelledError`, the job's failure."""

    async def cancel(self, owner: str, job_id: str) -> JobStatus:
        """Ask a job to stop; a finished one stays as it is."""

    async def usage(self, owner: str, since: float) -> list[Charge]:
        """What the owner's jobs used after the Unix time `since`."""

    async def active(self, owner: str) -> int:
        """The owner's unfinished jobs."""
