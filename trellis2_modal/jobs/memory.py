"""A job table in memory: the double of tests, and the copy that a gateway on Modal keeps of its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..protocol.replies import JobEvent
from .job import Event, Job
from .ports import WITHOUT_FILES, Query


class MemoryTable:
    """See `ports.JobTable`."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._events: dict[str, list[Event]] = {}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def insert(self, job: Job, event: Event) -> Job:
        if job.id not in self._jobs:
            self._jobs[job.id] = job
            self._events[job.id] = [event]
        return self._jobs[job.id]

    async def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    async def swap(self, old: Job, new: Job, event: Event | None = None) -> bool:
        now = self._jobs.get(old.id)
        if now is None or now.version != old.version:
            return False
        self._jobs[old.id] = new
        if event is not None:
            self._events.setdefault(old.id, []).append(event)
        return True

    async def query(self, query: Query) -> list[Job]:
        return [job for job in self._jobs.values() if _matches(job, query)]

    async def page(self, owner: str, limit: int, before: Job | None) -> list[Job]:
        mine = [job for job in self._jobs.values() if job.owner == owner]
        if before is not None:
            mine = mine[: [job.id for job in mine].index(before.id)]
        return mine[::-1][:limit]

    async def counts(self) -> dict[str, int]:
        return Counter(job.status for job in self._jobs.values())

    async def ids(self) -> set[str]:
        return {job.id for job in self._jobs.values() if job.status not in WITHOUT_FILES}

    async def forget(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            self._jobs.pop(job_id, None)
            self._events.pop(job_id, None)

    async def report(self, job_id: str, events: Sequence[Event]) -> None:
        self._events.setdefault(job_id, []).extend(events)

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        wanted = self._events.get(job_id, [])[after : after + limit]
        return [event.numbered(number) for number, event in enumerate(wanted, after + 1)]


def _matches(job: Job, query: Query) -> bool:
    ended = job.finished
    late = job.status == "finished" and job.expires is not None
    return (
        (query.owner is None or job.owner == query.owner)
        and (not query.states or job.status in query.states)
        and (query.ended_after is None or (ended is not None and ended > query.ended_after))
        and (query.ended_before is None or (ended is not None and ended < query.ended_before))
        and (query.expired_at is None or (late and (job.expires or 0.0) <= query.expired_at))
    )
