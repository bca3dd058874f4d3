"""The engine's ports on Modal: jobs are spawned calls of the GPU class, this process only counts them.

The job table (a `modal.Dict`) says which call is whose; the call itself holds the result for a week; a second
table has what running calls report. The job table is in memory too, so that looking costs at most one
question to Modal per job and interval, however many clients watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...protocol.errors import (
    ExpiredError,
    JobTimeoutError,
    ServiceError,
    UnavailableError,
    WorkerDiedError,
    in_one_line,
)
from ...protocol.events import Queued
from ...protocol.replies import JobEvent, JobResult, ProgressReport
from ..job import JOB_ID, Event, Job
from ..memory import MemoryTable
from ..ports import Artifact, Capabilities, Published, Query, Run
from ..settings import JobSettings
from .calls import Calls
from .progress import Entry, load_entry, used

logger = logging.getLogger(__name__)

SHARED_INTERVAL = 30.0
"""How old the list of jobs may be when several gateways make jobs."""

WEIGHTS_INTERVAL = 15.0
RESULT_CACHE_BYTES = 512 << 20
REPORTS_IN_MEMORY = 512


class CallTable(MemoryTable):
    """See `ports.JobTable`. What is in memory is the truth of this gateway; every change is written through.

    `shared`: other gateways write the table too. Two may both end a job, but only as its one call did.
    """

    def __init__(self, calls: Calls, shared: bool = False) -> None:
        super().__init__()
        self._calls = calls
        self._shared = shared
        self._loaded = float("-inf")
        self._reports: OrderedDict[str, Sequence[Event]] = OrderedDict()

    async def open(self) -> None:
        found = [job for raw in await self._calls.records() if (job := _job(raw)) is not None]
        for job in sorted(found, key=lambda job: (job.created, job.id)):
            self._merge(job)
        self._loaded = time.monotonic()

    def _merge(self, job: Job) -> Job:
        known = self._jobs.get(job.id)
        if known is None or known.version < job.version:
            self._jobs[job.id] = job
        return self._jobs[job.id]

    async def insert(self, job: Job, event: Event) -> Job:
        if not await self._calls.claim(job.id, job.dump()):
            known = await self._read(job.id)
            if known is not None:
                return known
            await self._calls.save(job.id, job.dump())  # what is there is damaged
        self._events[job.id] = [event]
        return self._merge(job)

    async def get(self, job_id: str) -> Job | None:
        known = self._jobs.get(job_id)
        if (known is None or (self._shared and not known.over)) and JOB_ID.fullmatch(job_id):
            return await self._read(job_id)
        return known

    async def _read(self, job_id: str) -> Job | None:
        job = _job(await self._calls.record(job_id))
        return self._jobs.get(job_id) if job is None else self._merge(job)

    async def swap(self, old: Job, new: Job, event: Event | None = None) -> bool:
        if not await super().swap(old, new):
            return False
        try:
            await self._calls.save(new.id, new.dump())
        except ServiceError as error:
            if new.handle != old.handle:  # else the call itself still tells
                self._jobs[old.id] = old
                raise
            logger.error("%s", error.detail)
        return True

    async def query(self, query: Query) -> list[Job]:
        if self._shared and time.monotonic() - self._loaded > SHARED_INTERVAL:
            await self.open()
        return await super().query(query)

    async def forget(self, job_ids: Iterable[str]) -> None:
        for job_id in list(job_ids):
            await super().forget([job_id])
            self._reports.pop(job_id, None)
            await self._calls.forget(job_id)

    async def report(self, job_id: str, events: Sequence[Event]) -> None:
        """The container's own list, whole: it alone knows of every start, and gateways come and go."""
        self._reports[job_id] = events
        self._reports.move_to_end(job_id)
        if len(self._reports) > REPORTS_IN_MEMORY:
            self._reports.popitem(last=False)

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """The job's acceptance, what its call reported, its end."""
        job = self._jobs[job_id]
        if job.handle is not None and job_id not in self._reports:
            await self.report(job_id, reports(load_entry(await self._calls.progress(job.handle))))
        first = self._events.get(job_id) or [Event.of(job.created, Queued(job=job.id))]
        listed = [*first, *self._reports.get(job_id, ()), *job.final_event()]
        return [event.numbered(n) for n, event in enumerate(listed, 1) if n > after][:limit]


def _job(raw: object) -> Job | None:
    if raw is None:
        return None
    try:
        return Job.load(raw)
    except ValueError as error:
        logger.error("a stored job cannot be read: %s", in_one_line(error))
        return None


def reports(entry: Entry | None) -> list[Event]:
    """The events that a container has written."""
    return [Event(e["type"], e["time"], e["data"]) for e in (entry["events"] if entry else ())]


class CallArtifacts:
    """See `ports.Artifacts`: inputs until their call is spawned, results as their calls hold them."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._inputs: dict[str, bytes | None] = {}
        self._results = ResultCache(RESULT_CACHE_BYTES)

    async def keep_input(self, job_id: str, payload: bytes | None) -> None:
        self._inputs[job_id] = payload

    def take_input(self, job_id: str) -> bytes | None:
        return self._inputs.pop(job_id, None)

    def keep_result(self, call: str, value: Any) -> None:
        self._results.put(call, value)

    async def _value(self, job: Job) -> Any:
        """What the job's call returned; None when Modal keeps it no longer, or never had it."""
        call = str(job.handle)
        value = self._results.get(call)
        if value is None:
            outcome = await self._calls.outcome(call)
            if outcome.state == "pending":
                raise UnavailableError("the result cannot be read now; try again", retry_after=5)
            if outcome.state == "returned":
                value = outcome.value
                self._results.put(call, value)
            elif job.status == "finished":
                logger.error("result of %s is %s: %s", call, outcome.state, outcome.detail)
        return value

    async def published(self, job: Job) -> Published | None:
        value = self._results.get(str(job.handle))
        if not isinstance(value, dict) or value.get("status") != "finished":
            return None
        artifacts = {
            name: {
                "url": f"/jobs/{job.id}/{name}",
                "media_type": file["media_type"],
                "bytes": len(file["data"]),
            }
            for name, file in value["files"].items()
        }
        members = {name: value[name] for name in ("seed", "resolution", "stats")}
        result = JobResult.model_validate(members | {"artifacts": artifacts})
        return Published(result.model_dump(mode="json"), float(value["seconds"]), float(value["finished"]))

    async def read(self, job: Job, name: str) -> Artifact | None:
        value = await self._value(job)
        if value is None:
            raise ExpiredError("files are kept for a limited time; generate again")
        file = value["files"].get(name)
        if file is None:
            return None
        data = file["data"]
        return Artifact(name, file["media_type"], len(data), etag=f"{job.id}-{name}", data=data)

    async def early(self, job: Job, name: str) -> Artifact | None:
        """A call returns all of its files together."""
        return None

    async def drop_input(self, job_id: str) -> None:
        self._inputs.pop(job_id, None)

    async def discard(self, job_id: str) -> None:
        self._inputs.pop(job_id, None)

    async def tidy(self, known: set[str], age: float) -> None:
        """Modal drops results by itself."""


class CallRunner:
    """See `ports.Runner`: Modal has the queue, starts containers, and runs a call again when one dies."""

    eager = True
    restarts = 0

    def __init__(self, calls: Calls, artifacts: CallArtifacts, settings: JobSettings) -> None:
        self._calls, self._artifacts, self._settings = calls, artifacts, settings
        self._capabilities = Capabilities()
        self._reported: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def idle(self) -> bool:
        return False

    async def open(self, wake: Callable[[], None]) -> None:
        await self._look_at_weights()
        if self._task is None:
            self._task = asyncio.create_task(self._watch_weights(), name="weights")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch_weights(self) -> None:
        while True:  # containers that cannot start any more show here too
            await asyncio.sleep(WEIGHTS_INTERVAL)
            with contextlib.suppress(ServiceError):  # logged where it was raised
                await self._look_at_weights()

    async def _look_at_weights(self) -> None:
        found = await self._calls.capabilities()
        if found.state == "degraded" != self._capabilities.state:
            logger.error("no job can be taken: %s", found.reason, extra={"code": "model-unavailable"})
        self._capabilities = found

    async def start(self, job: Job, source: Job | None) -> str:
        payload = self._artifacts.take_input(job.id)
        call = None if source is None else source.handle
        return await self._calls.spawn(job.kind, job.settings, payload, call)

    async def cancel(self, job: Job) -> None:
        await self._calls.cancel(str(job.handle))

    async def poll(self, job: Job) -> tuple[Run, list[Event]]:
        call = str(job.handle)
        outcome = await self._calls.outcome(call)
        entry = load_entry(await self._calls.progress(call))  # after it, so that nothing is missing
        run = _running(entry, time.time())
        if outcome.state == "returned":
            self._artifacts.keep_result(call, outcome.value)
            run = _returned(outcome.value, run)
        elif outcome.state == "timeout":
            minutes = self._settings.job_timeout / 60
            run = _failed(run, JobTimeoutError(f"stopped after {minutes:.0f} minutes; try smaller settings"))
        elif outcome.state == "expired":
            gone = "the result of this job is no longer kept; generate again"
            run = _failed(run, ExpiredError(gone))
        elif outcome.state == "error":
            if not job.cancel_requested:
                logger.error("call %s ended: %s", call, outcome.detail)
            run = replace(run, state="lost", reason="its container ended under it", final=True)
        return run, self._news(call, reports(entry), run)

    def _news(self, call: str, events: list[Event], run: Run) -> list[Event]:
        """The call's whole list when it has grown, else nothing: watchers are woken for news only."""
        known = self._reported.get(call, 0)
        self._reported[call] = len(events)
        if run.state not in ("waiting", "running"):
            del self._reported[call]
        return events if len(events) > known else []


def _running(entry: Entry | None, now: float) -> Run:
    if entry is None:
        return Run("waiting")
    began = float(entry["started"])
    return Run("running", int(entry["attempt"]), began, used(entry, now), _last_progress(entry))


def _failed(run: Run, error: ServiceError) -> Run:
    return replace(run, state="failed", problem=error.problem())


def _returned(value: Any, run: Run) -> Run:
    """The run of a call that returned `value` (see `service.deploy.model_host.Outcome`)."""
    if not isinstance(value, dict) or value.get("status") not in ("finished", "failed"):
        return _failed(run, WorkerDiedError("the call returned nothing usable; submit the job again"))
    seconds = float(value["seconds"])
    return replace(
        run,
        state=value["status"],
        attempt=int(value["attempt"]),
        started=run.started or float(value["finished"]) - seconds,
        seconds=seconds,
        problem=value.get("problem"),
    )


def _last_progress(entry: Entry) -> ProgressReport | None:
    for event in reversed(entry["events"]):
        if event["type"] == "progress":
            return ProgressReport.model_validate(event["data"])
        if event["type"] == "started":
            return None
    return None


class ResultCache:
    """What calls returned lately, by call; the oldest go when there are more than `limit` bytes of files."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, call: str) -> Any:
        """The value, or None."""
        if call not in self._values:
            return None
        self._values.move_to_end(call)
        return self._values[call][0]

    def put(self, call: str, value: Any) -> None:
        """Keep a value, unless it alone is too big."""
        files = value.get("files", {}) if isinstance(value, dict) else {}
        size = sum(len(file["data"]) for file in files.values())
        if call in self._values or size > self._limit:
            return
        self._values[call] = (value, size)
        self._held += size
        while self._held > self._limit:
            _, (_, freed) = self._values.popitem(last=False)
            self._held -= freed
