"""The backend on Modal: jobs are spawned calls of the GPU class, this process only keeps count of them.

The job table (a `modal.Dict`) says which call is whose; the call itself holds the result for a week; a second
table has what running calls report. All of it is in memory too, so that looking costs at most one question
to Modal per job and interval, however many clients watch.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ...protocol.errors import (
    ConflictError,
    ExpiredError,
    InternalError,
    JobCancelledError,
    JobTimeoutError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    UnavailableError,
    WorkerDiedError,
    error_from_problem,
)
from ...protocol.replies import JobEvent, JobStatus
from ...protocol.requests import PIPELINE_TYPES
from ...service.config import DeploySettings, Settings
from ...service.deploy.weights_manifest import WeightsError
from ..admission import DAY, check_room, check_source
from ..job import NewJob
from ..ports import Artifact, Capabilities, Charge, QueueStats
from . import records as modal_jobs
from .calls import CallOutcome, Calls
from .records import JOB_ID, NEVER, JobRecord, LiveJob, ResultCache, job_id_of

logger = logging.getLogger(__name__)

WATCH_INTERVAL = 5.0
SHARED_INTERVAL = 30.0
"""How old the list of jobs may be when several gateways make jobs."""

WEIGHTS_INTERVAL = 15.0
START_TIMEOUT = 10.0
UNSTARTED = 120.0
"""A job that has no call this long after it was stored was cut off while it was submitted."""

MAX_WAIT = 3600.0
"""A job that no container took for so long is ended, so that it neither waits nor counts for ever."""

RESULT_CACHE_BYTES = 512 << 20


class ModalBackend:
    """See the module. One per gateway container; all methods run on its event loop."""

    def __init__(
        self, calls: Calls, settings: Settings, deploy: DeploySettings, watch_interval: float = WATCH_INTERVAL
    ) -> None:
        self.settings = settings
        self._calls = calls
        self._deploy = deploy
        self._watch_interval = watch_interval
        self._jobs: dict[str, LiveJob] = {}
        self._results = ResultCache(RESULT_CACHE_BYTES)
        self._capabilities = Capabilities()
        self._loaded = False
        self._admission = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stats = QueueStats(limit=settings.queue_limit)

    # --- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the job table and what the weights can do; what fails now is tried again until it works."""
        first = asyncio.gather(self._load_jobs(), self._load_weights())
        try:
            await asyncio.wait_for(first, START_TIMEOUT)
        except (TimeoutError, ServiceError) as error:
            logger.warning("starting without an answer from Modal (%r); trying again", error)
        self._tasks = [
            asyncio.create_task(self._repeat(self._watch, self._watch_interval), name="watch"),
            asyncio.create_task(self._repeat(self._load_weights, WEIGHTS_INTERVAL), name="weights"),
        ]
        if self._deploy.gateway_max_containers > 1:
            self._tasks.append(asyncio.create_task(self._repeat(self._load_jobs, SHARED_INTERVAL)))

    async def close(self) -> None:
        """End event streams. Calls go on without this process."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, step: Callable[[], Awaitable[None]], interval: float) -> None:
        while not await self._stopped_within(interval):
            try:
                await step()
            except ServiceError as error:
                logger.warning("%s; trying again", error.detail)
            except Exception:
                logger.exception("housekeeping failed; trying again")

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _load_jobs(self) -> None:
        for raw in await self._calls.records():
            try:
                record = JobRecord.load(raw)
            except TypeError as error:
                logger.error("a stored job cannot be read: %r", error)
                continue
            known = self._jobs.setdefault(record.id, LiveJob(record))
            if not known.over and (record.status is not None or known.record.call is None):
                known.record = record
        self._loaded = True
        self._count()

    async def _load_weights(self) -> None:
        if self._capabilities.state == "ready":
            return
        try:
            manifest = await self._calls.manifest()
        except WeightsError as error:
            if self._capabilities.state != "degraded":
                logger.error("no job can be taken: %s", error)
            self._capabilities = Capabilities(self._deploy.model, self._deploy.gpu, (), "degraded")
            return
        offered = manifest.pipeline_types
        types = tuple(str(name) for name in PIPELINE_TYPES if name in offered)
        self._capabilities = Capabilities(self._deploy.model, self._deploy.gpu, types, "ready")

    # --- the seam ----------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        if self._stopping.is_set():
            return dataclasses.replace(self._capabilities, state="stopping")
        return self._capabilities

    def stats(self) -> QueueStats:
        return self._stats

    async def submit(self, job: NewJob) -> JobStatus:
        job_id = job_id_of(job)
        async with self._admission:
            live = await self._find(job_id) if job.idempotency_key is not None else None
            if live is not None and live.record.fingerprint != job.request_digest:
                raise ConflictError("use a new Idempotency-Key for a new request")
            if live is not None and not self._cut_off(live):
                return self._status(live)
            await self._check(job)
            record = live.record if live is not None else await self._claim(job_id, job)
            live = self._jobs.setdefault(job_id, LiveJob(record))
            if live.record.call is not None:  # another gateway was first
                return self._status(live)
            self._count()
        await self._spawn(live, job)
        return self._status(live)

    async def _claim(self, job_id: str, job: NewJob) -> JobRecord:
        record = JobRecord(
            id=job_id,
            owner=job.owner,
            kind=job.kind,
            settings=job.settings,
            fingerprint=job.request_digest,
            created=time.time(),
            source=job.source,
        )
        if await self._calls.claim(job_id, record.dump()):
            return record
        stored = JobRecord.load(await self._calls.record(job_id) or record.dump())
        if stored.fingerprint != job.request_digest:
            raise ConflictError("use a new Idempotency-Key for a new request")
        return stored

    async def _check(self, job: NewJob) -> None:
        if self._stopping.is_set():
            raise UnavailableError("the service is stopping; try again in a minute", retry_after=30)
        if not self._loaded:
            raise UnavailableError("the service is starting; try again shortly", retry_after=5)
        if self._capabilities.state == "degraded":
            raise UnavailableError("the model is not in place; the operator has been told", retry_after=60)
        charges = await self.usage(job.owner, time.time() - DAY)
        queued = sum(live.queued for live in self._jobs.values())
        check_room(job, queued, self.settings.queue_limit, self._active(job.owner), charges)
        if job.source is not None:
            source = await self._owned(job.owner, job.source)
            await self._refresh(source)
            check_source(job.source, source.record.kind, source.state(time.time()))

    async def _spawn(self, live: LiveJob, job: NewJob) -> None:
        source = self._jobs[job.source].record.call if job.source is not None else None
        record = live.record
        try:
            call = await self._calls.spawn(job.kind, job.settings, job.payload, source)
            live.record = dataclasses.replace(record, call=call)
            await self._calls.save(record.id, live.record.dump())
        except BaseException:
            if live.record.call is not None:  # it runs, but could not be stored: nobody could ever claim it
                await self._quietly(self._calls.cancel(live.record.call))
            self._jobs.pop(record.id, None)
            await self._quietly(self._calls.forget(record.id))
            self._count()
            raise
        logger.info("job spawned", extra={"job": record.id, "call": call, "kind": job.kind, "key": job.owner})

    async def status(self, owner: str, job_id: str) -> JobStatus:
        live = await self._owned(owner, job_id)
        await self._refresh(live)
        return self._status(live)

    async def list_jobs(self, owner: str, limit: int, before: str | None = None) -> list[JobStatus]:
        mine = sorted(
            (live for live in self._jobs.values() if live.record.owner == owner),
            key=lambda live: (live.record.created, live.record.id),
            reverse=True,
        )
        if before is not None:
            mark = (await self._owned(owner, before)).record
            mine = [live for live in mine if (live.record.created, live.record.id) < (mark.created, mark.id)]
        page = mine[:limit]
        await asyncio.gather(*(self._refresh(live) for live in page))
        return [self._status(live) for live in page]

    async def events(self, owner: str, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        live = await self._owned(owner, job_id)
        while True:
            try:
                await self._refresh(live)
            except UnavailableError:
                logger.warning("job %s cannot be looked at; its watchers wait", job_id)
            over = live.over
            for event in live.events(after):
                after = event.id
                yield event
            if over or await self._stopped_within(self.settings.event_interval):
                return

    async def result(self, owner: str, job_id: str, name: str) -> Artifact:
        live = await self._owned(owner, job_id)
        await self._refresh(live)
        state = live.state(time.time())
        if state in ("queued", "running"):
            raise NotReadyError(f"the job is {state}", retry_after=5)
        if state == "cancelled":
            raise JobCancelledError()
        if state == "failed":
            raise error_from_problem(live.record.problem or {})
        value = None if state == "expired" else await self._value(live)
        if value is None:
            raise ExpiredError("files are kept for a limited time; generate again")
        file = value["files"].get(name)
        if file is None:
            raise NotFoundError(f"this job has no {name}")
        data = file["data"]
        return Artifact(name, file["media_type"], len(data), etag=f"{job_id}-{name}", data=data)

    async def cancel(self, owner: str, job_id: str) -> JobStatus:
        live = await self._owned(owner, job_id)
        live.checked = NEVER
        await self._refresh(live)
        if not live.over:
            call = live.record.call
            if call is None:
                raise NotReadyError("the job is being submitted; try again", retry_after=2)
            live.record = dataclasses.replace(live.record, cancel_requested=True)
            await self._calls.cancel(call)
            live.checked = NEVER
            await self._refresh(live)  # it may have finished just before
            if not live.over:
                most = self.settings.job_timeout
                await self._end(live, modal_jobs.cancelled(live.record, time.time(), live.entry, most))
        return self._status(live)

    async def usage(self, owner: str, since: float) -> list[Charge]:
        records = (live.record for live in self._jobs.values())
        return [
            Charge(record.id, record.finished, record.seconds)
            for record in records
            if record.owner == owner
            and record.seconds > 0
            and record.finished is not None
            and since < record.finished < time.time() + DAY
        ]

    async def active(self, owner: str) -> int:
        return self._active(owner)

    # --- following calls ---------------------------------------------------------------------------------

    async def _refresh(self, live: LiveJob) -> None:
        """Ask Modal about a job that has not ended, unless that was done an instant ago."""
        async with live.lock:
            record, call = live.record, live.record.call
            if call is None:
                if self._cut_off(live):
                    await self._fail(live, InternalError("it was cut off while it was submitted; try again"))
            elif live.over:
                if live.entry is None and live.checked == NEVER:  # read from the table: its events, once
                    live.checked = time.monotonic()
                    live.entry = await self._calls.progress(call)
            elif time.monotonic() - live.checked >= self.settings.event_interval:
                outcome = await self._calls.outcome(call)
                live.entry = await self._calls.progress(call)  # after it, so that nothing is missing
                live.checked = time.monotonic()
                if outcome.state != "pending":
                    await self._settle(live, outcome)
                elif live.entry is None and time.time() - record.created > MAX_WAIT:
                    await self._calls.cancel(call)
                    await self._fail(live, UnavailableError("no container took the job within an hour"))
                self._count()

    async def _fail(self, live: LiveJob, error: ServiceError) -> None:
        most = self.settings.job_timeout
        await self._end(live, modal_jobs.failed(live.record, error.problem(), time.time(), live.entry, most))

    async def _settle(self, live: LiveJob, outcome: CallOutcome) -> None:
        """Store how a call ended."""
        record, now, most = live.record, time.time(), self.settings.job_timeout
        if outcome.state == "returned":
            self._results.put(str(record.call), outcome.value)
            await self._end(live, modal_jobs.ended(record, outcome.value, self.settings.retention, now))
            return
        stored = await self._calls.record(record.id)
        if stored is not None and stored.get("status") is not None:  # another gateway has settled it
            live.record = JobRecord.load(stored)
            return
        if record.cancel_requested or (stored or {}).get("cancel_requested"):
            await self._end(live, modal_jobs.cancelled(record, now, live.entry, most))
            return
        logger.error("call %s ended as %s: %s", record.call, outcome.state, outcome.detail)
        problem: ServiceError = WorkerDiedError(
            "its container ended under it; try smaller settings, or later"
        )
        if outcome.state == "timeout":
            problem = JobTimeoutError(f"stopped after {most / 60:.0f} minutes; try smaller settings")
        elif outcome.state == "expired":
            problem = ExpiredError("the result of this job is no longer kept; generate again")
        await self._fail(live, problem)

    async def _end(self, live: LiveJob, record: JobRecord) -> None:
        live.record = record
        self._count()
        logger.info(
            "job %s",
            record.status,
            extra={"job": record.id, "key": record.owner, "gpu_seconds": round(record.seconds, 3)},
        )
        await self._quietly(self._calls.save(record.id, record.dump()))

    async def _value(self, live: LiveJob) -> Any:
        """What a finished job's call returned; None when Modal keeps it no longer."""
        call = str(live.record.call)
        async with live.lock:
            value = self._results.get(call)
            if value is None:
                outcome = await self._calls.outcome(call)
                if outcome.state == "pending":
                    raise UnavailableError("the result cannot be read now; try again", retry_after=5)
                if outcome.state != "returned":
                    logger.error("result of %s is %s: %s", call, outcome.state, outcome.detail)
                    await self._end(live, dataclasses.replace(live.record, expires=time.time()))
                    return None
                value = outcome.value
                self._results.put(call, value)
        return value

    async def _watch(self) -> None:
        """Follow calls that nobody watches, and forget jobs whose result Modal has dropped."""
        if not self._loaded:
            await self._load_jobs()
        active = [live for live in self._jobs.values() if not live.over]
        await asyncio.gather(*(self._refresh(live) for live in active))
        horizon = time.time() - self.settings.row_retention
        for job_id, live in list(self._jobs.items()):
            if live.over and (live.record.finished or 0.0) < horizon:
                await self._calls.forget(job_id)
                del self._jobs[job_id]
        self._count()

    # --- small helpers -----------------------------------------------------------------------------------

    async def _find(self, job_id: str) -> LiveJob | None:
        """A job by its id, also one that another gateway made."""
        live = self._jobs.get(job_id)
        if live is None and JOB_ID.fullmatch(job_id):
            raw = await self._calls.record(job_id)
            if raw is not None:
                live = self._jobs.setdefault(job_id, LiveJob(JobRecord.load(raw)))
        return live

    async def _owned(self, owner: str, job_id: str) -> LiveJob:
        live = await self._find(job_id)
        if live is None or live.record.owner != owner:
            raise NotFoundError("there is no such job, or it is not yours")
        return live

    def _cut_off(self, live: LiveJob) -> bool:
        record = live.record
        return record.call is None and not live.over and time.time() - record.created > UNSTARTED

    def _active(self, owner: str) -> int:
        return sum(live.record.owner == owner and not live.over for live in self._jobs.values())

    def _status(self, live: LiveJob) -> JobStatus:
        ahead = None
        if live.queued:
            ahead = sum(o.queued and o.record.created < live.record.created for o in self._jobs.values())
        return live.status(time.time(), ahead)

    def _count(self) -> None:
        now = time.time()
        totals = Counter(live.state(now) for live in self._jobs.values())
        queued, running = totals.pop("queued", 0), totals.pop("running", 0)
        self._stats = QueueStats(queued, running, self.settings.queue_limit, 0, dict(totals))

    async def _quietly(self, call: Awaitable[None]) -> None:
        try:
            await call
        except ServiceError as error:
            logger.error("%s", error.detail)
