"""The backend on one machine: a queue in SQLite, a worker process that owns the model, results as files."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from ..protocol.errors import (
    ExpiredError,
    InternalError,
    JobCancelledError,
    JobTimeoutError,
    NotFoundError,
    NotReadyError,
    ServiceError,
    StorageFullError,
    UnavailableError,
    WorkerDiedError,
    error_from_problem,
)
from ..protocol.replies import FINAL_EVENTS, FINAL_STATES, JobEvent, JobStatus
from ..service.config import Settings
from .backend import Artifact, Capabilities, Charge, NewJob, QueueStats
from .job_files import JobFiles
from .locks import FileLock
from .store import JobStore, Row, new_job_id, status_of
from .worker_process import WorkerEnded, WorkerProcess, WorkerSilent, WorkerSpec

logger = logging.getLogger(__name__)
T = TypeVar("T")

SERVER_LOCK_TIMEOUT = 15.0
SWEEP_INTERVAL = 60.0
STRAY_AGE = 3600.0
RETRY_INTERVAL = 2.0
"""Seconds until something that could not be stored is tried again."""

MAX_RESTART_DELAY = 30.0


class LocalBackend:
    """Runs jobs one after another in a worker process that is restarted whenever it ends."""

    def __init__(self, spec: WorkerSpec, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_env()
        self._spec = spec
        self._lock = FileLock(self.settings.data_dir / "server.lock", timeout=SERVER_LOCK_TIMEOUT)
        self._files = JobFiles(self.settings.data_dir / "jobs", self.settings.min_free_bytes)
        self._store: JobStore | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._worker: WorkerProcess | None = None
        self._current: str | None = None
        self._cancel_deadline: float | None = None
        self._capabilities = Capabilities()
        self._stats = QueueStats(limit=self.settings.queue_limit)
        self._restarts = 0
        self._stopping = False
        self._work = asyncio.Event()
        self._waiters: dict[str, set[asyncio.Event]] = {}

    # --- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the data folder, recover what a killed server left, start the worker."""
        await asyncio.to_thread(self.take_folder)
        self._store = await asyncio.to_thread(JobStore, self.settings.data_dir / "jobs.sqlite")
        await asyncio.to_thread(self._recover)
        await self._refresh_stats()
        self._work.set()
        self._tasks = [
            asyncio.create_task(self._keep_working(), name="worker"),
            asyncio.create_task(self._keep_tidy(), name="sweeper"),
        ]

    def take_folder(self) -> None:
        """One server a data folder. Waits for one that is stopping; raises TimeoutError when it does not."""
        self._lock.acquire()

    def begin_shutdown(self) -> None:
        """Refuse new jobs and let event streams end, so that connections can close."""
        self._stopping = True
        self._work.set()
        for events in self._waiters.values():
            for event in events:
                event.set()

    async def close(self) -> None:
        """Let the running job end within the grace; what has not ended is put back into the queue."""
        self.begin_shutdown()
        if self._worker is not None and self._current is not None:
            deadline = time.monotonic() + self.settings.shutdown_grace
            while self._current is not None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._worker is not None:
            await self._worker.quit(0.0 if self._current else 2.0)
        if self._store is not None:
            if self._current is not None and not self._finish_from_disk(self._current):
                self._store.requeue(self._current, "the server was stopped")
            self._store.close()
        self._lock.release()

    def _recover(self) -> None:
        """Jobs that a killed server left running: finished if their result is there, else queued again."""
        for row in self.store.with_status("running"):
            if self._finish_from_disk(row["id"]):
                continue
            self._retry_or_fail(row, "the server was restarted")
            self._drop_files(row["id"])

    # --- the seam ----------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return (
            dataclasses.replace(self._capabilities, state="stopping")
            if self._stopping
            else self._capabilities
        )

    def stats(self) -> QueueStats:
        return self._stats

    async def submit(self, job: NewJob) -> JobStatus:
        repeat = await self._in_store(lambda s: s.find_repeat(job))
        if repeat is not None:
            return await self._status(repeat)
        if self._stopping:
            raise UnavailableError("the service is stopping; try again in a minute", retry_after=30)
        if self._capabilities.state == "degraded":
            raise UnavailableError("the model cannot be loaded; the operator has been told", retry_after=60)
        job_id = new_job_id()
        await asyncio.to_thread(self._files.store_input, job_id, job.payload)
        try:
            row, fresh = await self._in_store(lambda s: s.accept(job_id, job, self.settings.queue_limit))
        except BaseException:
            await asyncio.to_thread(self._files.remove, job_id)
            raise
        if not fresh:
            await asyncio.to_thread(self._files.remove, job_id)
        await self._refresh_stats()
        self._work.set()
        return await self._status(row)

    async def status(self, owner: str, job_id: str) -> JobStatus:
        return await self._status(await self._in_store(lambda s: s.owned(owner, job_id)))

    async def list_jobs(self, owner: str, limit: int, before: str | None = None) -> list[JobStatus]:
        rows = await self._in_store(lambda s: s.page(owner, limit, before))
        return [await self._status(row) for row in rows]

    async def events(self, owner: str, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        await self._in_store(lambda s: s.owned(owner, job_id))
        changed = asyncio.Event()
        self._waiters.setdefault(job_id, set()).add(changed)
        try:
            while True:
                changed.clear()
                over = (await self._in_store(lambda s: s.row(job_id)))["status"] in FINAL_STATES
                for event in await self._events_after(job_id, after):
                    after = event.id
                    yield event
                    over = over or event.type in FINAL_EVENTS
                if over or self._stopping:
                    return
                await changed.wait()
        finally:
            waiters = self._waiters[job_id]
            waiters.discard(changed)
            if not waiters:
                del self._waiters[job_id]

    async def _events_after(self, job_id: str, after: int) -> list[JobEvent]:
        return await self._in_store(lambda s: s.events(job_id, after))

    async def result(self, owner: str, job_id: str, name: str) -> Artifact:
        row = await self._in_store(lambda s: s.owned(owner, job_id))
        if row["status"] in ("queued", "running"):
            raise NotReadyError(f"the job is {row['status']}", retry_after=5)
        if row["status"] == "expired":
            raise ExpiredError("files are kept for a limited time; generate again")
        if row["status"] == "cancelled":
            raise JobCancelledError()
        if row["status"] == "failed":
            raise error_from_problem(json.loads(row["problem"]))
        entry = json.loads(row["result"])["artifacts"].get(name)
        path = self._files.result(job_id, name)
        if entry is None or not path.exists():
            raise NotFoundError(f"this job has no {name}")
        return Artifact(name, entry["media_type"], entry["bytes"], etag=f"{job_id}-{name}", path=path)

    async def cancel(self, owner: str, job_id: str) -> JobStatus:
        row = await self._in_store(lambda s: s.request_cancel(owner, job_id))
        if row["status"] == "running" and job_id == self._current and self._worker is not None:
            if self._cancel_deadline is None:
                self._cancel_deadline = time.monotonic() + self.settings.cancel_grace
            try:
                await self._worker.send("cancel", job=job_id)
            except WorkerEnded:
                logger.info("job %s: the worker ended before it could be told to cancel", job_id)
        if row["status"] == "cancelled":
            await self._ended(job_id)
        await self._refresh_stats()
        return await self._status(row)

    async def usage(self, owner: str, since: float) -> list[Charge]:
        return await self._in_store(lambda s: s.charges(owner, since))

    async def active(self, owner: str) -> int:
        return await self._in_store(lambda s: s.active(owner))

    # --- the worker --------------------------------------------------------------------------------------

    async def _keep_working(self) -> None:
        """Start a worker, feed it, and start another whenever it ends."""
        failures = 0
        while not self._stopping:
            try:
                self._worker = await WorkerProcess.start(self._spec, self.settings.data_dir)
                await self._wait_until_ready(self._worker)
                failures = 0
                await self._feed(self._worker)
            except (WorkerEnded, WorkerSilent) as error:
                self._restarts += 1
                failures += 1
                logger.warning("worker ended: %s", error)
                await self._settle(str(error))
            except Exception:
                failures += 1
                logger.exception("the backend's loop failed")
                await self._settle("an internal error")
            if failures > 1 and not self._stopping:
                await asyncio.sleep(min(0.25 * 2.0 ** min(failures, 10), MAX_RESTART_DELAY))

    async def _wait_until_ready(self, worker: WorkerProcess) -> None:
        while True:
            message = await worker.receive(self.settings.heartbeat_timeout)
            if message["type"] == "ready":
                types = tuple(message["pipeline_types"])
                self._capabilities = Capabilities(message["model"], message["device"], types, "ready")
                logger.info("worker %d is ready: %s on %s", worker.pid, message["model"], message["device"])
                return
            if message["type"] == "broken":
                known = self._capabilities
                self._capabilities = Capabilities(known.model, known.device, known.pipeline_types, "degraded")
                raise WorkerEnded(f"the model could not be loaded: {message['reason']}")

    async def _feed(self, worker: WorkerProcess) -> None:
        while not self._stopping:
            self._work.clear()
            try:
                row = await self._in_store(lambda s: s.claim())
            except StorageFullError:
                logger.error("no job can be started: the job store is full")
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            if row is None:
                await self._idle(worker)
                continue
            self._current, self._cancel_deadline = row["id"], None
            await self._refresh_stats()
            self._notify(row["id"])
            await self._run(worker, row)
            self._current = None
            await self._refresh_stats()

    async def _idle(self, worker: WorkerProcess) -> None:
        """Wait for work while listening to the worker, so that its death is noticed at once."""
        work = asyncio.ensure_future(self._work.wait())
        try:
            while not work.done():
                listen = asyncio.ensure_future(worker.receive(self.settings.heartbeat_timeout))
                await asyncio.wait({work, listen}, return_when=asyncio.FIRST_COMPLETED)
                if not listen.done():
                    listen.cancel()
                    await asyncio.gather(listen, return_exceptions=True)
                else:
                    listen.result()
        finally:
            work.cancel()

    async def _run(self, worker: WorkerProcess, row: Row) -> None:
        """Give a job to the worker and follow it to its end."""
        job_id = row["id"]
        payload = self._files.input(job_id)
        if row["source"] is not None:
            payload = self._files.result(row["source"], "state")
            if not payload.exists():
                await self._fail(job_id, ExpiredError("the state of the source is gone"))
                return
        await worker.send(
            "run",
            job=job_id,
            kind=row["kind"],
            settings=json.loads(row["settings"]),
            folder=str(self._files.folder(job_id)),
            payload=str(payload),
        )
        if (await self._in_store(lambda s: s.row(job_id)))["cancel_requested"]:
            self._cancel_deadline = time.monotonic() + self.settings.cancel_grace
            await worker.send("cancel", job=job_id)
        deadline = time.monotonic() + self.settings.job_timeout
        reporter = _Reporter(self.settings.event_interval)
        while True:
            now = time.monotonic()
            if now > deadline:
                minutes = self.settings.job_timeout / 60
                timeout = JobTimeoutError(f"stopped after {minutes:.0f} minutes; try smaller settings")
                await self._fail(job_id, timeout, self.settings.job_timeout)
                raise WorkerEnded("a job ran out of time")
            if self._cancel_deadline is not None and now > self._cancel_deadline:
                await self._in_store(lambda s: s.cancelled(job_id, self.settings.cancel_grace))
                await self._ended(job_id)
                raise WorkerEnded("a cancelled job did not stop")
            message = await worker.receive(self.settings.heartbeat_timeout)
            if message.get("job") != job_id:
                continue
            if message["type"] == "progress":
                report = {k: message[k] for k in ("stage", "step", "steps", "message")}
                if reporter.worth_storing(report):
                    await self._store_progress(job_id, report)
            elif await self._handle_end(row, message):
                return

    async def _store_progress(self, job_id: str, report: dict[str, Any]) -> None:
        try:
            await self._in_store(lambda s: s.progress(job_id, report))
        except StorageFullError:
            logger.error("job %s goes on, its progress cannot be stored", job_id)
        self._notify(job_id)

    async def _handle_end(self, row: Row, message: dict[str, Any]) -> bool:
        job_id, kind = row["id"], message["type"]
        seconds = float(message.get("seconds", 0.0))
        if kind == "done":
            if not await asyncio.to_thread(self._finish_from_disk, job_id):
                await self._fail(job_id, InternalError("the result was lost; submit the job again"), 0.0)
        elif kind == "cancelled":
            await self._in_store(lambda s: s.cancelled(job_id, seconds))
        elif kind == "failed":
            await self._fail(job_id, error_from_problem(message["problem"]), seconds)
        elif kind == "lost":
            raise WorkerEnded(message["reason"])
        else:
            return False
        await self._ended(job_id)
        return True

    async def _fail(self, job_id: str, error: ServiceError, seconds: float = 0.0) -> None:
        await self._in_store(lambda s: s.fail(job_id, error, seconds))
        await self._ended(job_id)

    async def _ended(self, job_id: str) -> None:
        """Keep of an ended job what its owner can ask for, and tell those who watch it."""
        await asyncio.to_thread(self._drop_files, job_id)
        self._notify(job_id)

    async def _settle(self, reason: str) -> None:
        """End the worker and decide about its job; tried until that can be stored."""
        while True:
            try:
                if self._worker is not None:
                    await self._worker.kill()
                    self._worker = None
                await self._after_worker_end(reason)
                return
            except Exception:
                logger.exception("the job of an ended worker cannot be settled yet")
                if self._stopping:  # then it is settled when the server starts again
                    return
                await asyncio.sleep(RETRY_INTERVAL)

    async def _after_worker_end(self, reason: str) -> None:
        job_id = self._current
        if job_id is not None:
            row = await self._in_store(lambda s: s.row(job_id))
            if row["status"] == "running" and not await asyncio.to_thread(self._finish_from_disk, job_id):
                await asyncio.to_thread(self._retry_or_fail, row, reason)
            await self._ended(job_id)
            self._current, self._cancel_deadline = None, None
        await self._refresh_stats()

    def _retry_or_fail(self, row: Row, reason: str) -> None:
        if row["attempt"] < self.settings.max_attempts or row["cancel_requested"]:
            self.store.requeue(row["id"], reason)
        else:
            error = WorkerDiedError(f"{reason}, {row['attempt']} times; try smaller settings, or later")
            self.store.fail(row["id"], error)

    def _finish_from_disk(self, job_id: str) -> bool:
        """Take over a result folder that a worker published; False when there is none."""
        document = self._files.published(job_id)
        if document is None:
            return False
        seconds = document.pop("seconds")
        self.store.finish(job_id, document, seconds, time.time() + self.settings.retention)
        return True

    # --- files, housekeeping -----------------------------------------------------------------------------

    def _drop_files(self, job_id: str) -> None:
        """Remove the input of a finished job, and everything of one that failed or was cancelled."""
        status = self.store.row(job_id)["status"]
        if status == "finished":
            self._files.drop_input(job_id)
        elif status in FINAL_STATES:
            self._files.remove(job_id)

    async def _keep_tidy(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.sweep)
                await self._refresh_stats()
            except Exception:
                logger.exception("housekeeping failed; it will be tried again")
            await asyncio.sleep(SWEEP_INTERVAL)

    def sweep(self) -> None:
        """Remove the files of expired jobs, folders without a job, and what is too old to remember."""
        now = time.time()
        for job_id in self.store.expire(now):
            self._files.remove(job_id)
        self.store.forget(now - self.settings.row_retention)
        self._files.remove_strays(self.store.known_ids(), now - STRAY_AGE)

    # --- small helpers -----------------------------------------------------------------------------------

    @property
    def store(self) -> JobStore:
        if self._store is None:
            raise RuntimeError("the backend has not been started")
        return self._store

    async def _in_store(self, call: Callable[[JobStore], T]) -> T:
        return await asyncio.to_thread(call, self.store)

    async def _status(self, row: Row) -> JobStatus:
        position = await self._in_store(lambda s: s.position(row)) if row["status"] == "queued" else None
        return status_of(row, position)

    def _notify(self, job_id: str) -> None:
        for event in self._waiters.get(job_id, ()):
            event.set()

    async def _refresh_stats(self) -> None:
        totals = await self._in_store(lambda s: s.totals())
        self._stats = QueueStats(
            queued=totals.pop("queued", 0),
            running=totals.pop("running", 0),
            limit=self.settings.queue_limit,
            worker_restarts=self._restarts,
            totals=totals,
        )


class _Reporter:
    """Thins out progress: the first and last step of each stage always, others at most every interval."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._stage: str | None = None
        self._last = 0.0

    def worth_storing(self, report: dict[str, Any]) -> bool:
        now = time.monotonic()
        new_stage = report["stage"] != self._stage
        if not new_stage and report["step"] < report["steps"] and now - self._last < self._interval:
            return False
        self._stage, self._last = report["stage"], now
        return True
