"""When a job is taken: room in the queue, the key's own limits, and the source that an extraction names."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..protocol.errors import (
    ExpiredError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    QuotaExceededError,
    TooManyJobsError,
)
from .job import NewJob
from .ports import Charge

DAY = 24 * 3600.0


def check_room(job: NewJob, queued: int, queue_limit: int, active: int, charges: Sequence[Charge]) -> None:
    """Raises `QueueFullError`, `TooManyJobsError` or `QuotaExceededError`; `charges` are of the last day,
    those of unfinished jobs reserved."""
    if queued >= queue_limit:
        raise QueueFullError(f"{queued} jobs are waiting, the most is {queue_limit}", retry_after=30)
    if active >= job.max_active:
        raise TooManyJobsError(
            f"{active} of your jobs are unfinished, the most is {job.max_active}", retry_after=10
        )
    used = sum(charge.seconds for charge in charges)
    if used >= job.gpu_seconds:
        wait = max(60.0, min((c.time for c in charges), default=time.time()) + DAY - time.time())
        raise QuotaExceededError(
            f"{used:.0f} of {job.gpu_seconds:.0f} GPU seconds of the last 24 hours are used",
            retry_after=round(min(wait, DAY)),
        )


def check_source(source: str, kind: str, status: str) -> None:
    """Raises unless `source` is a finished generation whose state is still kept."""
    if kind != "generate":
        raise NotFoundError(f"job {source} is not a generation")
    if status == "expired":
        raise ExpiredError(f"the state of job {source} is no longer kept; send the state itself")
    if status in ("queued", "running"):
        raise NotReadyError(f"job {source} is {status}", retry_after=5)
    if status != "finished":
        raise NotFoundError(f"job {source} is {status} and has no state")
