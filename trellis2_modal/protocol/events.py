"""The events of a job, each with the type of its data: what a server sends, and what clients read."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from .errors import JobCancelledError, error_from_problem
from .replies import EventType, JobEvent, JobResult, JobState, Problem, ProgressReport, Reply


class Queued(Reply):
    """The job waits; `position` others are ahead. Sent again whenever that changes."""

    job: str = ""
    position: int | None = None


class Started(Reply):
    """A worker has taken the job, for the `attempt`-th time."""

    attempt: int = 1


class Restarted(Reply):
    """The job waits again, because of `reason`."""

    reason: str = ""


class Cancelled(Reply):
    """The owner stopped the job."""


Payload = Queued | Started | ProgressReport | Restarted | JobResult | Problem | Cancelled

PAYLOADS: dict[EventType, type[Payload]] = {
    "queued": Queued,
    "started": Started,
    "progress": ProgressReport,
    "restarted": Restarted,
    "result": JobResult,
    "failed": Problem,
    "cancelled": Cancelled,
}

TYPES: dict[type[Payload], EventType] = {payload: kind for kind, payload in PAYLOADS.items()}

Data = dict[str, JsonValue]


def data_of(payload: Payload) -> Data:
    """The payload as an event carries it."""
    return payload.model_dump(mode="json", exclude_none=True)


def payload_of(event: JobEvent) -> Payload:
    """The typed data of an event. Raises `pydantic.ValidationError`."""
    return PAYLOADS[event.type].model_validate(event.data)


def event_of(number: int, time: datetime, payload: Payload) -> JobEvent:
    return JobEvent(id=number, type=TYPES[type(payload)], time=time, data=data_of(payload))


def final_payload(status: JobState, result: object, problem: object) -> Payload:
    """What the last event of a job carries, made of its `result` or its `problem` (models or dicts)."""
    if status == "failed":
        return Problem.model_validate(problem)
    return Cancelled() if status == "cancelled" else JobResult.model_validate(result or {})


def is_result(event: JobEvent) -> bool:
    """Whether a job's result is there; raises the failure that the event brings, or `JobCancelledError`."""
    if event.type == "failed":
        raise error_from_problem(event.data)
    if event.type == "cancelled":
        raise JobCancelledError("the job was cancelled")
    return event.type == "result"
