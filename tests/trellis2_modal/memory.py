"""The job engine in one process: a table, a runner and artifacts in memory, the generator in a thread."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.trellis2_modal.fake import KilledError
from trellis2.errors import Cancelled
from trellis2.progress import Monitor, Progress
from trellis2_modal.jobs.engine import Engine
from trellis2_modal.jobs.execution import DeviceLostError, Generator, JobOutput, Thinning, run_job
from trellis2_modal.jobs.job import Event, Job
from trellis2_modal.jobs.memory import MemoryTable
from trellis2_modal.jobs.ports import Artifact, Capabilities, Published, Run
from trellis2_modal.jobs.settings import JobSettings
from trellis2_modal.protocol.errors import InternalError, ServiceError
from trellis2_modal.protocol.replies import JobResult, ProgressReport, ViewSupport, artifact_of


class MemoryArtifacts:
    """See `ports.Artifacts`."""

    def __init__(self) -> None:
        self.inputs: dict[str, bytes | None] = {}
        self.outputs: dict[str, tuple[JobOutput, float]] = {}

    async def keep_input(self, job_id: str, payload: bytes | None) -> None:
        self.inputs[job_id] = payload

    async def published(self, job: Job) -> Published | None:
        if job.id not in self.outputs:
            return None
        output, seconds = self.outputs[job.id]
        artifacts = {
            name: {"url": f"/jobs/{job.id}/{name}", "media_type": file.media_type, "bytes": len(file.data)}
            for name, file in output.files.items()
        }
        document = {"seed": output.seed, "resolution": output.resolution, "stats": output.stats}
        result = JobResult.model_validate(document | {"artifacts": artifacts})
        return Published(result.model_dump(mode="json"), seconds)

    async def read(self, job: Job, name: str) -> Artifact | None:
        file = self.outputs[job.id][0].files.get(name)
        if file is None:
            return None
        return Artifact(name, file.media_type, len(file.data), etag=f"{job.id}-{name}", data=file.data)

    async def early(self, job: Job, name: str) -> Artifact | None:
        return None

    async def drop_input(self, job_id: str) -> None:
        self.inputs.pop(job_id, None)

    async def discard(self, job_id: str) -> None:
        self.inputs.pop(job_id, None)
        self.outputs.pop(job_id, None)

    async def tidy(self, known: set[str], age: float) -> None:
        for job_id in [*self.inputs, *self.outputs]:
            if job_id not in known:
                await self.discard(job_id)


@dataclass
class Task:
    """One job in the worker's thread."""

    job: Job
    payload: bytes
    run: Run
    stop: bool = False
    killed: bool = False
    events: list[Event] = field(default_factory=list)


class ThreadRunner:
    """See `ports.Runner`. `kill` ends the worker as `kill -9` does."""

    eager = False

    def __init__(self, generator: Generator, artifacts: MemoryArtifacts, settings: JobSettings) -> None:
        self.restarts = 0
        self._settings = settings
        self.generator = generator
        self.state = "ready"
        self._artifacts = artifacts
        self._task: Task | None = None
        self._wake: Callable[[], None] = lambda: None

    def capabilities(self) -> Capabilities:
        g = self.generator
        types, views = tuple(g.pipeline_types), ViewSupport.model_validate(g.views)
        return Capabilities(
            g.model,
            g.device,
            types,
            self.state,
            g.samplers,
            backends=g.backends,
            views=views,
            texture_types=tuple(g.texture_types),
            default_type=g.default_type,
        )

    def idle(self) -> bool:
        return self._task is None and self.state == "ready"

    async def open(self, wake: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._wake = lambda: None if loop.is_closed() else _discard(loop.call_soon_threadsafe(wake))

    async def close(self) -> None:
        if self._task is not None:
            self._task.stop = self._task.killed = True

    async def start(self, job: Job, source: Job | None) -> str:
        payload = self._artifacts.inputs.get(job.id) or b""
        if job.source is not None:
            name = artifact_of("state", job.settings.get("variant", 1))
            payload = self._artifacts.outputs[job.source][0].files[name].data
        self._task = Task(job, payload, Run("running", job.attempt, time.time()))
        threading.Thread(target=self._work, args=(self._task,), daemon=True).start()
        return "thread"

    async def poll(self, job: Job) -> tuple[Run, list[Event]]:
        task = self._task
        if task is None or task.job.id != job.id:
            return Run("lost", reason="the worker ended"), []
        events, task.events = task.events, []
        if task.run.state != "running":
            self._task = None
        return task.run, events

    async def cancel(self, job: Job) -> None:
        if self._task is not None and self._task.job.id == job.id:
            self._task.stop = True

    def kill(self) -> None:
        """End the worker under its job."""
        if self._task is not None:
            self._task.killed = self._task.stop = True
            self._end(self._task, "lost", reason="killed by signal 9")
            self.restarts += 1

    def _work(self, task: Task) -> None:
        thinning = Thinning(self._settings.event_interval)

        def report(at: Progress) -> None:
            progress = ProgressReport(stage=at.stage, step=at.step, steps=at.steps, message=at.message)
            task.run = dataclasses.replace(task.run, progress=progress)
            if thinning.worth_keeping(at.stage, at.step, at.steps):
                task.events.append(Event.of(time.time(), progress))
                self._wake()

        try:
            monitor = Monitor(report, lambda: task.stop)
            output = run_job(self.generator, task.job.kind, task.job.settings, task.payload, monitor)
            if not task.killed:
                self._artifacts.outputs[task.job.id] = output, time.time() - (task.run.started or 0.0)
                self._end(task, "finished")
        except Cancelled:
            self._end(task, "cancelled")
        except (DeviceLostError, KilledError):
            self.restarts += 1
            self._end(task, "lost", reason="killed by signal 9")
        except ServiceError as error:
            self._end(task, "failed", problem=error.problem())
        except Exception:
            self._end(task, "failed", problem=InternalError("it was logged").problem())

    def _end(self, task: Task, state: object, **changes: object) -> None:
        if task.run.state == "running":
            seconds = time.time() - (task.run.started or 0.0)
            task.run = dataclasses.replace(task.run, state=state, seconds=seconds, **changes)  # type: ignore[arg-type]
            self._wake()


def _discard(handle: object) -> None:
    return None


def memory_engine(generator: Generator, settings: JobSettings | None = None) -> Engine:
    artifacts, settings = MemoryArtifacts(), settings or JobSettings()
    return Engine(MemoryTable(), ThreadRunner(generator, artifacts, settings), artifacts, settings)
