"""The job engine: it accepts jobs, starts them, follows them to their end, and tells their owners.

Everything names the owner, so that a job can only ever be reached by the key that made it. A job is changed
by one of the pure steps of `job` and a compare-and-set in the table. What runs jobs and where their files are
is behind the ports. Raises the errors of `trellis2_modal.protocol.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..protocol.errors import (
    ConflictError,
    ExpiredError,
    InternalError,
    JobCancelledError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    UnavailableError,
    WorkerDiedError,
    error_from_problem,
)
from ..protocol.events import Queued, payload_of
from ..protocol.replies import FINAL_EVENTS, JobEvent, JobState, JobStatus, ProgressReport, with_asset
from ..protocol.requests import JobKind
from . import job as steps
from .admission import DAY, check_room, check_source
from .estimates import REMEMBERED, Measured, Measurements
from .job import Event, Job, NewJob, Step
from .ports import ACTIVE, Artifact, Artifacts, Capabilities, Charge, JobTable, Query, QueueStats, Run, Runner
from .settings import JobSettings

logger = logging.getLogger(__name__)

START_TIMEOUT = 10.0
SWEEP_INTERVAL = 60.0
WATCH_INTERVAL = 5.0
"""How often jobs that nobody watches are looked at."""

RETRY_INTERVAL = 2.0
"""Seconds until something that could not be stored is tried again."""

STRAY_AGE = 3600.0
"""Seconds that files without a job are left alone while jobs are accepted."""

UNSTARTED = 120.0
"""A job that no eager runner has this long after it was stored was cut off while it was submitted: it is
forgotten, and the same request makes it anew."""

MEASURED_AGE = 7 * DAY
"""How old the jobs may be that a server which has just started estimates by."""

EVENT_PAGE = 200
STARTING = "starting"
"""The handle of a job that has been taken from the queue and that no runner has answered for yet."""

FINAL: tuple[JobState, ...] = ("finished", "failed", "cancelled", "expired")
NO_MODEL = "the model cannot be loaded; the service's log says why (model-unavailable)"
UNKNOWN = "there is no such job, or it is not yours"


@dataclass
class Watch:
    """What this process knows of a job beyond the table."""

    progress: ProgressReport | None = None
    seconds: float = 0.0
    polled: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: set[asyncio.Event] = field(default_factory=set)


class Engine:
    """See the module. One per server; all methods run on its event loop."""

    def __init__(
        self, table: JobTable, runner: Runner, artifacts: Artifacts, settings: JobSettings | None = None
    ) -> None:
        self.settings = settings or JobSettings()
        self.table, self.runner, self.artifacts = table, runner, artifacts
        self._watches: dict[str, Watch] = {}
        self._admission = asyncio.Lock()
        self._submitting: dict[str, asyncio.Lock] = {}
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stats = QueueStats(limit=self.settings.queue_limit)
        self._measurements = Measurements()
        self._listeners: list[Callable[[Job], None]] = []

    # --- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover what a killed server left, and work; what a platform cannot do now is tried again."""
        work = asyncio.create_task(self._work(), name="jobs")
        self._tasks = [work, asyncio.create_task(self._keep_tidy(), name="sweeper")]
        opened = asyncio.create_task(self._opened.wait())
        await asyncio.wait({work, opened}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if work.done():
            await self.close()
            work.result()
        if not self._opened.is_set():
            logger.warning("starting without an answer of the platform; trying again")

    async def opened(self) -> None:
        """Returns when jobs are accepted."""
        await self._opened.wait()

    def on_end(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` with every job that ends from now on."""
        self._listeners.append(listener)

    def begin_shutdown(self) -> None:
        """Refuse new jobs and let event streams end, so that connections can close."""
        self._stopping = True
        self._wake.set()
        self._notify_all()

    async def close(self) -> None:
        """Let the running job end within the grace; what has not ended is put back into the queue."""
        self.begin_shutdown()
        own = self._opened.is_set() and not self.runner.eager
        deadline = time.monotonic() + self.settings.shutdown_grace
        while own and time.monotonic() < deadline and await self._running():
            await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runner.close()
        for job in await self._running() if own else []:
            await self._lost(job, Run("lost", reason="the server was stopped"), crashed=False)
        if self._opened.is_set():
            self._opened.clear()
            await self.table.close()

    async def _work(self) -> None:
        """Open the ports and follow jobs. Raises only what keeps the ports closed for good."""
        while not self._opened.is_set():
            try:
                await self._open()
            except ServiceError as error:
                logger.error("%s; trying again", error.detail)
                await asyncio.sleep(RETRY_INTERVAL)
        while True:
            try:
                await self._drive()
            except ServiceError as error:
                logger.error("jobs wait: %s; trying again", error.detail)
                await asyncio.sleep(RETRY_INTERVAL)
            except Exception:
                logger.exception("following jobs failed; trying again")
                await asyncio.sleep(RETRY_INTERVAL)

    async def _open(self) -> None:
        await self.table.open()
        await self.runner.open(self._wake.set)
        for job in [] if self.runner.eager else await self._running():
            await self._lost(job, Run("lost", reason="the server was restarted"), crashed=False)
        await self.artifacts.tidy(await self.table.ids(), 0.0)
        recent = Query(states=("finished", "expired"), ended_after=time.time() - MEASURED_AGE)
        self._measurements.add((await self.table.query(recent))[-REMEMBERED:])
        await self._refresh_stats()
        self._opened.set()

    async def _drive(self) -> None:
        """Look at every job that the runner has, start those that it can take, and wait for news."""
        self._wake.clear()
        active = await self.table.query(Query(states=ACTIVE))
        for job in filter(self._cut_off, active):  # nobody was told that it was accepted
            if job.id in self._submitting:
                continue
            logger.warning("job %s was cut off while it was submitted", job.id)
            await self.table.forget([job.id])
        looked = await asyncio.gather(*(self._advance(job) for job in active), return_exceptions=True)
        waiting = [job for job in active if job.handle is None]
        while waiting and not self.runner.eager and not self._stopping and self.runner.idle():
            await self._start(waiting.pop(0))
        for fault in looked:  # after the others had their turn
            if isinstance(fault, BaseException):
                raise fault
        await self._refresh_stats()
        await _set_within(self._wake, WATCH_INTERVAL)

    async def _keep_tidy(self) -> None:
        await self._opened.wait()
        while True:
            try:
                await self.sweep()
            except Exception:
                logger.exception("housekeeping failed; trying again")
            await asyncio.sleep(SWEEP_INTERVAL)

    async def sweep(self) -> None:
        """Remove the files of expired jobs, files without a job, and what is too old to remember."""
        now = time.time()
        for job in await self.table.query(Query(expired_at=now)):
            await self._expire(job)
        old = await self.table.query(Query(states=FINAL, ended_before=now - self.settings.row_retention))
        for job in old:
            await self.artifacts.discard(job.id)
        await self.table.forget(job.id for job in old)
        await self.artifacts.tidy(await self.table.ids(), STRAY_AGE)
        await self._refresh_stats()

    # --- accepting ---------------------------------------------------------------------------------------

    async def submit(self, new: NewJob) -> JobStatus:
        """Accept a job, or return the one that the same idempotency key made before.

        Raises `ConflictError` (same key, other request), `QueueFullError`, `TooManyJobsError`,
        `QuotaExceededError`, `NotFoundError` (unknown source), `NotReadyError`, `ExpiredError`,
        `StorageFullError`, `UnavailableError`.
        """
        job_id = new.job_id()
        async with self._alone(job_id):
            known = None if new.idempotency_key is None else await self.table.get(job_id)
            if known is not None:
                _check_repeat(known, new)
                if not self._cut_off(known):
                    if self._unstarted(known):  # by a gateway that is at it, or was when it ended
                        raise UnavailableError("this request is being taken; try again", retry_after=10)
                    return await self._view(known)
            self._check_open()
            await self.artifacts.keep_input(job_id, new.payload)
            try:
                job = await self._admit(new, job_id)
                if self.runner.eager and job.handle is None and not job.over:
                    job = await self._start(job)
            except BaseException:
                await self.artifacts.discard(job_id)
                raise
        self._wake.set()
        await self._refresh_stats()
        return await self._view(job)

    def _check_open(self) -> None:
        if self._stopping:
            raise UnavailableError("the service is stopping; try again in a minute", retry_after=30)
        if not self._opened.is_set():
            raise UnavailableError("the service is starting; try again shortly", retry_after=5)
        if self.runner.capabilities().state == "degraded":
            raise UnavailableError(NO_MODEL, retry_after=60)

    async def _admit(self, new: NewJob, job_id: str) -> Job:
        """Every check and the insertion, with no other admission between them."""
        source = None
        if new.source is not None:
            source = await self._advance(await self._owned(new.owner, new.source))
            check_source(source.id, source.kind, source.state(time.time()))
        async with self._admission:
            now = time.time()
            active = await self.table.query(Query(states=ACTIVE))
            queued = sum(job.status == "queued" for job in active)
            mine = [job for job in active if job.owner == new.owner and job.id != job_id]
            reserve = self.settings.reserve_seconds
            charges = await self.usage(new.owner, now - DAY)
            charges += [Charge(job.id, now, max(reserve, job.spent(now))) for job in mine]
            check_room(new, queued, self.settings.queue_limit, len(mine), charges)
            job = await self.table.insert(*steps.accepted(new, job_id, now, queued))
        _check_repeat(job, new)
        return job

    async def _start(self, job: Job) -> Job:
        """Hand a job to the runner; one that it cannot take ends, or (`eager`) was never accepted."""
        async with self._watch(job.id).lock:
            return await self._start_alone(job)

    async def _start_alone(self, job: Job) -> Job:
        source = None if job.source is None else await self.table.get(job.source)
        if not self.runner.eager:
            attempt = job.attempt + 1
            job = await self._change(job.id, lambda j: steps.started(j, time.time(), attempt, STARTING))
            if job.status != "running" or job.attempt != attempt:
                return job
        handle = ""
        try:
            handle = await self.runner.start(job, source)
            job = await self._change(job.id, lambda j: steps.handed_over(j, handle))
        except BaseException as error:
            if not self.runner.eager and isinstance(error, ExpiredError):
                return await self._fail(job, error, job.seconds)
            if self.runner.eager:
                if handle:  # it runs, but could not be stored: nobody could ever claim it
                    await self._quietly(self.runner.cancel(dataclasses.replace(job, handle=handle)))
                await self._quietly(self.table.forget([job.id]))
            raise
        if job.over or job.cancel_requested:  # meanwhile
            await self.runner.cancel(dataclasses.replace(job, handle=handle))
        logger.info(
            "job started", extra={"job": job.id, "handle": handle, "kind": job.kind, "key": job.owner}
        )
        return job

    # --- looking -----------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """What can be asked for; cheap."""
        known = self.runner.capabilities()
        return dataclasses.replace(known, state="stopping") if self._stopping else known

    def stats(self) -> QueueStats:
        """Counters; cheap."""
        return self._stats

    async def status(self, owner: str, job_id: str) -> JobStatus:
        """Raises `NotFoundError`."""
        return await self._view(await self._advance(await self._owned(owner, job_id)))

    async def list_jobs(self, owner: str, limit: int, before: str | None = None) -> list[JobStatus]:
        """The owner's jobs, newest first, older than the job `before`."""
        mark = None if before is None else await self._owned(owner, before)
        page = await self.table.page(owner, limit, mark)
        jobs = await asyncio.gather(*(self._advance(job) for job in page))
        return [await self._view(job) for job in jobs]

    async def events(self, owner: str, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events with an id above `after`, then new ones as they happen; ends after the final event.

        While the job waits, `queued` comes again with each new position, under the id of the event before.
        """
        job = await self._owned(owner, job_id)
        position: int | None = None
        with self._watching(job_id) as changed:
            while True:
                changed.clear()
                job = await self._look(job)
                page = await self.table.events(job_id, after, EVENT_PAGE)
                for event in page:
                    after = event.id
                    if isinstance(payload := payload_of(event), Queued):
                        position = payload.position
                    yield event
                    if event.type in FINAL_EVENTS:
                        return
                if len(page) == EVENT_PAGE:
                    continue
                if job.over or self._stopping:
                    return
                if job.status == "queued" and (ahead := await self._ahead(job)) != position:
                    position = ahead
                    moved = Event.of(time.time(), Queued(job=job_id, position=ahead))
                    yield moved.numbered(after)
                await _set_within(changed, self._patience())

    async def _look(self, job: Job) -> Job:
        try:
            return await self._advance(await self.table.get(job.id) or job)
        except UnavailableError:
            logger.warning("job %s cannot be looked at; its watchers wait", job.id)
            return job

    async def result(self, owner: str, job_id: str, name: str) -> Artifact:
        """Raises `NotFoundError`, `NotReadyError`, `ExpiredError`, `JobCancelledError`, the job's failure."""
        job = await self._advance(await self._owned(owner, job_id))
        state = job.state(time.time())
        if state in ACTIVE:
            if (file := await self.artifacts.early(job, name)) is not None:
                return file
            raise NotReadyError(f"the job is {state}", retry_after=5)
        if state == "cancelled":
            raise JobCancelledError()
        if state == "failed":
            raise error_from_problem(job.problem or {})
        if state == "expired":
            raise ExpiredError("files are kept for a limited time; generate again")
        try:
            file = await self.artifacts.read(job, "glb" if name == "asset" else name)
        except ExpiredError:
            await self._expire(job)
            raise
        if file is None:
            raise NotFoundError(f"this job has no {name}")
        return file

    async def cancel(self, owner: str, job_id: str) -> JobStatus:
        """Ask a job to stop; a finished one stays as it is."""
        job = await self._owned(owner, job_id)
        if self.runner.eager:
            job = await self._advance(job, now=True)
        job = await self._change(job_id, lambda j: steps.cancel_requested(j, time.time()))
        if not job.over and job.handle is not None:
            await self.artifacts.drop_input(job_id)
            await self.runner.cancel(job)
            if self.runner.eager:
                job = await self._advance(job, now=True)  # it may have finished just before
                job = await self._change(job_id, lambda j: steps.cancelled(j, time.time(), self._spent(j)))
        await self._refresh_stats()
        return await self._view(job)

    async def usage(self, owner: str, since: float) -> list[Charge]:
        """What the owner's jobs used after the Unix time `since`.

        Only until a day from now: a clock that jumped ahead and back does not lock a key.
        """
        ended = await self.table.query(Query(owner=owner, ended_after=since))
        latest = time.time() + DAY
        return [
            Charge(job.id, job.finished, job.seconds)
            for job in ended
            if job.seconds > 0 and job.finished is not None and job.finished < latest
        ]

    def estimate(self, kind: JobKind, settings: Mapping[str, Any]) -> Measured | None:
        """What a job with these settings takes here; None where none like it was measured."""
        samplers = self.runner.capabilities().samplers
        return self._measurements.estimate(kind, settings, self._place(), samplers)

    async def wait(self) -> float | None:
        """Seconds until a job that is submitted now would begin; None where one ahead cannot be estimated."""
        total, now = 0.0, time.time()
        for job in await self.table.query(Query(states=ACTIVE)):
            found = self.estimate(job.kind, job.settings)
            if found is None:
                return None
            total += max(0.0, found.seconds - (job.spent(now) - job.seconds))
        return total / self.settings.workers

    def _place(self) -> dict[str, str]:
        """Where a job runs, as its stats say it."""
        known = self.runner.capabilities()
        return {"model": known.model, "device": known.device}

    async def active(self, owner: str) -> int:
        """The owner's unfinished jobs."""
        return len(await self.table.query(Query(owner=owner, states=ACTIVE)))

    # --- following ---------------------------------------------------------------------------------------

    async def _advance(self, job: Job, now: bool = False) -> Job:
        """Ask the runner about a job that it has, unless that was done an instant ago."""
        if job.over or (not self.runner.eager and job.handle is None):
            return job
        watch = self._watch(job.id)
        async with watch.lock:
            job = await self.table.get(job.id) or job
            if job.over:
                return job
            if job.handle is None:
                return job
            recent = time.monotonic() - watch.polled < self.settings.event_interval
            if self.runner.eager and recent and not now:
                return job
            run, events = await self.runner.poll(job)
            watch.polled, watch.progress, watch.seconds = time.monotonic(), run.progress, run.seconds
            if run.started is not None:
                began, attempt = run.started, run.attempt
                job = await self._change(job.id, lambda j: steps.started(j, began, attempt))
            if events:
                await self.table.report(job.id, events)
                self._notify(job.id)
            if run.state in ("waiting", "running"):
                return await self._check_wait(job)
            return await self._settle(job, run)

    async def _check_wait(self, job: Job) -> Job:
        """End a job that a platform does not begin, so that it does not count for ever."""
        limit = self.settings.longest_wait(job.ahead)
        if self.runner.eager and job.status == "queued" and time.time() - job.created > limit:
            await self.runner.cancel(job)
            late = UnavailableError(f"no container took the job within {limit / 60:.0f} minutes; try later")
            return await self._fail(job, late, 0.0)
        return job

    async def _settle(self, job: Job, run: Run) -> Job:
        """Take over how a run ended."""
        seconds = job.seconds + run.seconds
        if run.state == "finished":
            lost = InternalError("the result was lost; submit the job again")
            return await self._finish(job) or await self._fail(job, lost, seconds)
        if run.state == "lost":
            return await self._lost(job, run)
        error = error_from_problem(run.problem or {})

        def stopped(job: Job) -> Step:
            if run.state == "cancelled" or job.cancel_requested:
                return steps.cancelled(job, time.time(), seconds)
            return steps.failed(job, time.time(), error, seconds)

        return await self._change(job.id, stopped)

    async def _lost(self, job: Job, run: Run, crashed: bool = True) -> Job:
        """The worker is gone: the job has finished after all, runs again, or has killed its last worker."""
        done = await self._finish(job)
        if done is not None:
            return done
        crashes = job.crashes + crashed
        spent = job.seconds + run.seconds if run.final else self._spent(job)
        if job.cancel_requested:
            return await self._change(job.id, lambda j: steps.cancelled(j, time.time(), spent))
        if run.final or crashes >= self.settings.max_attempts:
            died = max(crashes, run.attempt)
            times = f", {died} times" if died > 1 else ""
            error = WorkerDiedError(f"{run.reason}{times}; try smaller settings, or later")
            return await self._fail(job, error, spent)
        return await self._change(job.id, lambda j: steps.requeued(j, time.time(), run.reason, crashed))

    async def _finish(self, job: Job) -> Job | None:
        """Take over the result that a job published; None when there is none."""
        found = await self.artifacts.published(job)
        if found is None:
            return None
        ended, seconds = found.finished or time.time(), job.seconds + found.seconds
        keep = self.settings.retention
        stats: Any = found.result.get("stats") or {}
        result = with_asset(found.result) | {"stats": stats | self._place() | self.settings.costs(seconds)}
        done = await self._change(job.id, lambda j: steps.finished(j, ended, result, seconds, keep))
        self._measurements.add([done])
        return done

    async def _fail(self, job: Job, error: ServiceError, seconds: float) -> Job:
        return await self._change(job.id, lambda j: steps.failed(j, time.time(), error, seconds))

    async def _expire(self, job: Job) -> None:
        await self._change(job.id, lambda j: steps.expired(j, time.time()))
        await self.artifacts.discard(job.id)

    async def _change(self, job_id: str, step: Callable[[Job], Step]) -> Job:
        """Apply a step to the job as it is now; returns the job after it."""
        while True:
            job = await self.table.get(job_id)
            if job is None:
                raise NotFoundError(UNKNOWN)
            change = step(job)
            if change is None:
                return job
            new, event = dataclasses.replace(change[0], version=job.version + 1), change[1]
            if await self.table.swap(job, new, event):
                if new.over and not job.over:
                    await self._ended(new)
                self._notify(job_id)
                if job.status == "queued" != new.status:
                    self._notify_all()  # those behind it move up
                return new

    async def _ended(self, job: Job) -> None:
        """Keep of an ended job what its owner can ask for."""
        if job.status == "finished":
            await self.artifacts.drop_input(job.id)
        else:
            await self.artifacts.discard(job.id)
        for listener in self._listeners:
            listener(job)
        seconds = round(job.seconds, 3)
        logger.info("job %s", job.status, extra={"job": job.id, "key": job.owner, "gpu_seconds": seconds})
        self._wake.set()

    # --- small helpers -----------------------------------------------------------------------------------

    async def _owned(self, owner: str, job_id: str) -> Job:
        """The owner's job; another's is as unknown as one that never was."""
        job = await self.table.get(job_id)
        if job is None or job.owner != owner:
            raise NotFoundError(UNKNOWN)
        return job

    async def _running(self) -> list[Job]:
        return await self.table.query(Query(states=("running",)))

    async def _view(self, job: Job) -> JobStatus:
        position = await self._ahead(job) if job.status == "queued" else None
        watch = self._watches.get(job.id)
        return job.view(time.time(), position, watch.progress if watch else None)

    async def _ahead(self, job: Job) -> int:
        queued = await self.table.query(Query(states=("queued",)))
        return next((place for place, other in enumerate(queued) if other.id == job.id), 0)

    def _spent(self, job: Job) -> float:
        """What a job has used, by the runner's own count where that is more."""
        watch = self._watches.get(job.id)
        counted = job.seconds + watch.seconds if watch else 0.0
        return min(max(job.spent(time.time()), counted), job.seconds + self.settings.job_timeout)

    def _unstarted(self, job: Job) -> bool:
        return self.runner.eager and job.handle is None and not job.over

    def _cut_off(self, job: Job) -> bool:
        return self._unstarted(job) and time.time() - job.created > UNSTARTED

    def _patience(self) -> float | None:
        """How long a watcher may sleep: a platform tells nobody of what happens there."""
        return self.settings.event_interval if self.runner.eager else None

    def _watch(self, job_id: str) -> Watch:
        return self._watches.setdefault(job_id, Watch())

    @contextmanager
    def _watching(self, job_id: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        waiters = self._watch(job_id).waiters
        waiters.add(changed)
        try:
            yield changed
        finally:
            waiters.discard(changed)

    @asynccontextmanager
    async def _alone(self, job_id: str) -> AsyncIterator[None]:
        """One submission of an id at a time: repeats under one idempotency key wait for the first."""
        lock = self._submitting.setdefault(job_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._submitting.pop(job_id, None)

    def _notify(self, job_id: str) -> None:
        for waiter in self._watch(job_id).waiters if job_id in self._watches else ():
            waiter.set()

    def _notify_all(self) -> None:
        for job_id in list(self._watches):
            self._notify(job_id)

    async def _refresh_stats(self) -> None:
        totals = await self.table.counts()
        queued, running = totals.pop("queued", 0), totals.pop("running", 0)
        self._stats = QueueStats(queued, running, self.settings.queue_limit, self.runner.restarts, totals)
        if len(self._watches) > 4 * (queued + running) + 64:
            self._forget_watches()

    def _forget_watches(self) -> None:
        idle = [i for i, w in self._watches.items() if not w.waiters and not w.lock.locked()]
        for job_id in idle:
            del self._watches[job_id]

    async def _quietly(self, call: Awaitable[Any]) -> None:
        try:
            await call
        except ServiceError as error:
            logger.error("%s", error.detail)


def _check_repeat(known: Job, new: NewJob) -> None:
    if known.request_digest != new.request_digest:
        raise ConflictError("use a new Idempotency-Key for a new request")


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, but not for ever. (`wait_for` before Python 3.12 may swallow a cancellation.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
