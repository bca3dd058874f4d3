"""The events of a job, each with the type of its data: what a server sends, and what clients read."""

from __future__ import annotations

from pydantic import JsonValue

from .replies import EventType, JobEvent, JobResult, Problem, ProgressReport, Reply


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

Data = dict[str, JsonValue]


def payload_of(event: JobEvent) -> Payload:
    """The typed data of an event. Raises `pydantic.ValidationError`."""
    return PAYLOADS[event.type].model_validate(event.data)
