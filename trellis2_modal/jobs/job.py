"""A job: one frozen record, and the pure steps that lead from one state of it to the next.

A step takes a job and returns what follows with the event that tells of it, or None where it does not apply:
a final state is reached once, whoever asks first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from ..protocol.errors import ServiceError
from ..protocol.events import TYPES, Data, Payload, Queued, Restarted, Started, data_of, final_payload
from ..protocol.replies import (
    FINAL_STATES,
    EventType,
    JobEvent,
    JobResult,
    JobState,
    JobStatus,
    Problem,
    ProgressReport,
)
from ..protocol.requests import JobKind

JOB_ID = re.compile(r"job_[0-9a-f]{32}")


def _is_result(data: Data) -> Data:
    JobResult.model_validate(data)
    return data


def _is_problem(data: Data) -> Data:
    Problem.model_validate(data)
    return data


Moment = Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]
"""Unix seconds that a calendar has: up to the year 9999."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class JobRequest:
    """A checked request, whoever asks.

    `settings` are the fields of `GenerateSettings.given` (pipeline type filled in) or `ExtractSettings`
    (preset resolved). `payload` is the encoded picture or the compressed state; an extraction may name a
    finished generation of the same owner in `source` instead.
    """

    kind: JobKind
    settings: dict[str, Any]
    payload: bytes | None
    source: str | None = None
    named: str | None = None
    """What the request named in place of the payload: another day it may stand for another picture."""

    callback_url: str | None = None
    """Who is told of the job's end."""


@dataclass(frozen=True, kw_only=True)
class NewJob(JobRequest):
    """A request, ready to run.

    `request_digest` tells a repeated request from another one under the same `idempotency_key`. `max_active`
    bounds the owner's unfinished jobs and `gpu_seconds` what its jobs may use in 24 hours; both are checked
    in one step with accepting the job.
    """

    owner: str
    request_digest: str
    idempotency_key: str | None = None
    max_active: int = 8
    gpu_seconds: float = float("inf")

    def job_id(self) -> str:
        """A new id; with an idempotency key always the same, so that storing the job claims the key."""
        if self.idempotency_key is None:
            return new_job_id()
        return "job_" + hashlib.sha256(f"{self.owner}\n{self.idempotency_key}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Attempt:
    """One delivery of a callback: the receiver's HTTP status, or why there is none."""

    time: Moment
    status: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Callback:
    """Who is told of a job's end. The next attempt is not before `due`."""

    url: str
    state: Literal["waiting", "delivered", "failed"] = "waiting"
    attempts: tuple[Attempt, ...] = ()
    due: Moment = 0.0


@dataclass(frozen=True)
class Job:
    """What is stored. Times are Unix seconds; `seconds` is what all attempts together have used.

    `handle` is the runner's name of the job, `ahead` how many waited before it when it was accepted,
    `crashes` counts workers that died under it, `version` the changes. `load` checks all of it, so that a
    stored job can always be shown.
    """

    id: str
    owner: str
    kind: JobKind
    settings: dict[str, Any]
    request_digest: str
    created: Moment
    source: str | None = None
    ahead: int = 0
    status: JobState = "queued"
    handle: str | None = None
    cancel_requested: bool = False
    started: Moment | None = None
    finished: Moment | None = None
    expires: Moment | None = None
    attempt: int = 0
    crashes: int = 0
    seconds: Seconds = 0.0
    result: Annotated[Data, AfterValidator(_is_result)] | None = None
    problem: Annotated[Data, AfterValidator(_is_problem)] | None = None
    version: int = 0
    callback: Callback | None = None

    @property
    def over(self) -> bool:
        return self.status in FINAL_STATES

    def spent(self, now: float) -> float:
        """What all attempts have used, the running one included."""
        running = self.status == "running" and self.started is not None
        return self.seconds + (max(0.0, now - (self.started or now)) if running else 0.0)

    def final_event(self) -> list[Event]:
        """The event of the job's end, if it has ended."""
        if not self.over:
            return []
        payload = final_payload(self.status, self.result, self.problem)
        return [Event.of(self.finished or self.created, payload)]

    def state(self, now: float) -> JobState:
        """The status, or expired when the time of the files is over."""
        late = self.status == "finished" and self.expires is not None and self.expires <= now
        return "expired" if late else self.status

    def view(self, now: float, position: int | None, progress: ProgressReport | None) -> JobStatus:
        """The job as its owner sees it."""
        shown = dataclasses.asdict(self) | {
            name: utc(value)
            for name in ("created", "started", "finished", "expires")
            if (value := getattr(self, name)) is not None
        }
        status = self.state(now)
        return JobStatus.model_validate(
            shown
            | {
                "status": status,
                "position": position if status == "queued" else None,
                "progress": progress if status == "running" else None,
            }
        )

    def dump(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, raw: object) -> Job:
        """Members that a newer version stored are left out. Raises ValueError for what is no whole job."""
        job = JOB.validate_python(raw)
        if (job.status == "finished" and job.result is None) or (job.over and job.finished is None):
            raise ValueError(f"a job that is {job.status} without saying how or when")
        return job


JOB: TypeAdapter[Job] = TypeAdapter(Job)


@dataclass(frozen=True)
class Event:
    """An event that has no number yet."""

    type: EventType
    time: float
    data: Data = field(default_factory=dict)

    @classmethod
    def of(cls, time: float, payload: Payload) -> Event:
        return cls(TYPES[type(payload)], time, data_of(payload))

    def numbered(self, number: int) -> JobEvent:
        return JobEvent(id=number, type=self.type, time=utc(self.time), data=self.data)


Step = tuple[Job, Event | None] | None
"""A changed job with its event, or None: the step does not apply to the job as it is."""


def accepted(new: NewJob, job_id: str, now: float, position: int) -> tuple[Job, Event]:
    callback = None if new.callback_url is None else Callback(new.callback_url)
    job = Job(
        *(job_id, new.owner, new.kind, new.settings, new.request_digest, now, new.source, position),
        callback=callback,
    )
    return job, Event.of(now, Queued(job=job_id, position=position))


def handed_over(job: Job, handle: str) -> Step:
    """The runner keeps the job from now on under a name of its own."""
    return None if job.over else (dataclasses.replace(job, handle=handle), None)


def started(job: Job, now: float, attempt: int, handle: str | None = None) -> Step:
    """A worker has the job, or (with a new `handle`) is about to get it."""
    if job.over or (job.status == "running" and job.attempt >= attempt):
        return None
    running = dataclasses.replace(
        job, status="running", started=now, attempt=attempt, handle=handle or job.handle
    )
    return running, Event.of(now, Started(attempt=attempt))


def requeued(job: Job, now: float, reason: str, crashed: bool) -> Step:
    """The worker is gone: the job waits again, or ends if its owner wants it gone. Its attempt is charged."""
    if job.status != "running":
        return None
    if job.cancel_requested:
        return cancelled(job, now, job.spent(now))
    waiting = dataclasses.replace(
        job,
        status="queued",
        handle=None,
        started=None,
        seconds=job.spent(now),
        crashes=job.crashes + crashed,
    )
    return waiting, Event.of(now, Restarted(reason=reason))


def finished(job: Job, now: float, result: Data, seconds: float, retention: float) -> Step:
    return _ended(job, now, "finished", seconds, result=result, expires=now + retention)


def failed(job: Job, now: float, error: ServiceError, seconds: float) -> Step:
    return _ended(job, now, "failed", seconds, problem=error.problem())


def cancelled(job: Job, now: float, seconds: float) -> Step:
    return _ended(job, now, "cancelled", seconds, cancel_requested=True)


def cancel_requested(job: Job, now: float) -> Step:
    """A job that no runner has yet is cancelled at once; for another its runner must be told."""
    if job.over:
        return None
    if job.status == "queued" and job.handle is None:
        return cancelled(job, now, job.seconds)
    return dataclasses.replace(job, cancel_requested=True), None


def expired(job: Job, now: float) -> Step:
    return (dataclasses.replace(job, status="expired"), None) if job.status == "finished" else None


def _ended(job: Job, now: float, status: JobState, seconds: float, **changes: Any) -> Step:
    """The one way into a final state."""
    if job.over:
        return None
    seconds = max(seconds, job.seconds)
    ended = dataclasses.replace(job, status=status, finished=now, seconds=seconds, **changes)
    return ended, ended.final_event()[0]


def new_job_id() -> str:
    return "job_" + secrets.token_hex(16)


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
