"""Runs jobs one after another in a worker process that is replaced whenever it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...protocol.errors import ExpiredError, JobTimeoutError
from ...protocol.replies import ProgressReport, ViewSupport, artifact_of
from ..execution import Thinning
from ..job import Event, Job
from ..ports import Capabilities, Run
from ..settings import JobSettings
from ..worker_process import WorkerEnded, WorkerProcess, WorkerSilent, WorkerSpec
from .files import JobFiles

logger = logging.getLogger(__name__)

MAX_RESTART_DELAY = 30.0
QUIT_GRACE = 2.0
HANDLE = "worker"


class WorkerRunner:
    """See `ports.Runner`."""

    eager = False

    def __init__(self, spec: WorkerSpec, files: JobFiles, settings: JobSettings, data_dir: Path) -> None:
        self._spec, self._files, self._settings, self._data_dir = spec, files, settings, data_dir
        self.restarts = 0
        self._capabilities = Capabilities()
        self._wake: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None
        self._worker: WorkerProcess | None = None
        self._ready = False
        """Whether the worker takes jobs: not while it loads, and no longer once it is to be replaced."""

        self._job: str | None = None
        self._run = Run("waiting")
        self._events: list[Event] = []
        self._thinning = Thinning(settings.event_interval)
        self._deadline = self._cancel_deadline = float("inf")

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def idle(self) -> bool:
        return self._ready and self._job is None

    async def open(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._task = asyncio.create_task(self._keep_working(), name="worker")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._worker is not None:
            await self._worker.quit(0.0 if self._job else QUIT_GRACE)

    async def start(self, job: Job, source: Job | None) -> str:
        payload = self._files.input(job.id)
        if job.source is not None:
            payload = self._files.result(
                job.source, artifact_of("state", int(job.settings.get("variant", 1)))
            )
            if not payload.exists():
                raise ExpiredError("the state of the source is gone")
        self._job, self._run, self._events = job.id, Run("running", job.attempt, time.time()), []
        self._thinning = Thinning(self._settings.event_interval)
        self._deadline = time.monotonic() + self._settings.job_timeout
        self._cancel_deadline = float("inf")
        await self._send(
            "run",
            job=job.id,
            kind=job.kind,
            settings=job.settings,
            folder=str(self._files.folder(job.id)),
            payload=str(payload),
        )
        return HANDLE

    async def poll(self, job: Job) -> tuple[Run, list[Event]]:
        if self._job != job.id:
            return Run("lost", reason="the worker ended"), []
        run, events, self._events = self._run, self._events, []
        if run.state != "running":
            self._job = None
        return run, events

    async def cancel(self, job: Job) -> None:
        if self._job == job.id:
            self._cancel_deadline = min(self._cancel_deadline, time.monotonic() + self._settings.cancel_grace)
            await self._send("cancel", job=job.id)

    async def _send(self, kind: str, /, **members: Any) -> None:
        try:
            if self._worker is not None:
                await self._worker.send(kind, **members)
        except WorkerEnded as error:  # the one that receives notices, and decides about the job
            logger.info("%s did not reach the worker: %s", kind, error)

    # --- the worker --------------------------------------------------------------------------------------

    async def _keep_working(self) -> None:
        """Start a worker, listen to it, and start another whenever it ends."""
        failures = 0
        while True:
            reason = "an internal error"
            try:
                worker = await WorkerProcess.start(self._spec, self._data_dir)
                self._worker = worker
                await self._wait_until_ready(worker)
                failures = 0
                while True:
                    self._take(await self._receive(worker))
            except (WorkerEnded, WorkerSilent) as error:
                reason = str(error)
                logger.warning("worker ended: %s", reason)
            except Exception:
                logger.exception("talking to the worker failed")
            failures += 1
            self.restarts += 1
            self._ready = False
            ended, self._worker = self._worker, None
            if ended is not None:
                await ended.kill()
            if self._run.state == "running":
                self._end("lost", reason=reason)
            if failures > 1:
                await asyncio.sleep(min(0.25 * 2.0 ** min(failures, 10), MAX_RESTART_DELAY))

    async def _wait_until_ready(self, worker: WorkerProcess) -> None:
        while True:
            message = await worker.receive(self._settings.heartbeat_timeout)
            if message["type"] == "ready":
                self._capabilities = Capabilities(
                    message["model"],
                    message["device"],
                    tuple(message["pipeline_types"]),
                    "ready",
                    message.get("samplers", {}),
                    backends=message.get("backends", {}),
                    texture_types=tuple(message.get("texture_types", ())),
                    default_type=message.get("default_type", ""),
                    views=ViewSupport.model_validate(message.get("views", {})),
                )
                self._ready = True
                logger.info("worker %d is ready: %s on %s", worker.pid, message["model"], message["device"])
                self._wake()
                return
            if message["type"] == "broken":
                reason = message["reason"]
                logger.error("no job can be taken: %s", reason, extra={"code": "model-unavailable"})
                self._capabilities = dataclasses.replace(self._capabilities, state="degraded", reason=reason)
                raise WorkerEnded(f"the model could not be loaded: {message['reason']}")

    async def _receive(self, worker: WorkerProcess) -> dict[str, Any]:
        """The next message. Raises `WorkerEnded` when the job has outlived its time, or its cancellation."""
        if self._job is not None and self._run.state == "running":
            now = time.monotonic()
            self._ready = now <= min(self._deadline, self._cancel_deadline)
            if now > self._deadline:
                minutes = self._settings.job_timeout / 60
                error = JobTimeoutError(f"stopped after {minutes:.0f} minutes; try smaller settings")
                self._end("failed", problem=error.problem())
                raise WorkerEnded("a job ran out of time")
            if now > self._cancel_deadline:
                self._end("cancelled")
                raise WorkerEnded("a cancelled job did not stop")
        return await worker.receive(self._settings.heartbeat_timeout)

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("job") != self._job or self._job is None or self._run.state != "running":
            return
        kind = message["type"]
        if kind == "progress":
            report = ProgressReport.model_validate(message)
            self._run = dataclasses.replace(self._run, progress=report)
            if self._thinning.worth_keeping(report.stage, report.step, report.steps):
                self._events.append(Event.of(time.time(), report))
                self._wake()
        elif kind == "done":
            self._end("finished", message["seconds"])
        elif kind == "failed":
            self._end("failed", message["seconds"], problem=message["problem"])
        elif kind == "cancelled":
            self._end("cancelled", message["seconds"])
        elif kind == "lost":
            raise WorkerEnded(message["reason"])

    def _end(self, state: Any, seconds: float | None = None, **changes: Any) -> None:
        """How the job's run ended; held until the engine has taken it over."""
        used = time.time() - (self._run.started or time.time()) if seconds is None else seconds
        self._run = dataclasses.replace(self._run, state=state, seconds=max(0.0, used), **changes)
        self._wake()
