"""Modal in this process: a queue, containers that are threads with the real hooks and host, tables, results.

It keeps the rules that the service relies on: arguments and results are pickled, a call that raises runs
again in another container up to its retries, one whose container crashed or was preempted as often as that
happens, and cancelling raises `InputCancellation` inside the running call. A container starts when a call
waits; one that cannot start is followed by another, without end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal import exception as modal_errors
from modal._runtime.execution_context import _current_function_call_id

from tests.trellis2_modal.fake import KilledError, create, die
from trellis2.progress import Monitor
from trellis2_modal.jobs.execution import DeviceLostError, JobOutput
from trellis2_modal.jobs.modal.calls import PENDING, CallOutcome
from trellis2_modal.jobs.ports import Capabilities
from trellis2_modal.protocol.errors import UnavailableError
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings, TextureSettings
from trellis2_modal.service.config import DeploySettings
from trellis2_modal.service.deploy.container import Container
from trellis2_modal.service.deploy.modal_calls import capabilities_of
from trellis2_modal.service.deploy.model_host import ModelHost, state_of
from trellis2_modal.service.deploy.start_record import KEY as START_KEY
from trellis2_modal.service.deploy.start_record import Start, StartRecord
from trellis2_modal.service.deploy.weights.manifest import COMMON_MODELS, REQUIRED_MODELS, Manifest
from trellis2_modal.service.service import run_call

MOST_STARTS = 20
MODELS = (*COMMON_MODELS, *REQUIRED_MODELS["512"], "shape_slat_encoder")
MANIFEST = Manifest("acme/mini", "0" * 40, "acme/eyes", "acme/scissors", MODELS)


class PreemptedError(BaseException):
    """What Modal's interrupt raises in a container that it takes away."""


class HostedFake:
    """The fake generator as a container holds it."""

    freed = 0

    def __init__(self, ends: Callable[[], None] = lambda: None, **options: Any) -> None:
        fake = create(**options)
        fake.crash = die
        self._ends = ends
        self.model, self.device, self.pipeline_types = fake.model, fake.device, fake.pipeline_types
        self.samplers, self.backends = fake.samplers, fake.backends
        self.views, self.texture_types = fake.views, fake.texture_types
        self.default_type = fake.default_type
        self._fake = fake

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput:
        return self._fake.generate(picture, settings, self._mortal(monitor))

    def texture(self, inputs: bytes, settings: TextureSettings, monitor: Monitor) -> JobOutput:
        return self._fake.texture(inputs, settings, self._mortal(monitor))

    def extract_glb(self, state: bytes, settings: ExtractSettings, monitor: Monitor) -> JobOutput:
        return self._fake.extract_glb(state, settings, self._mortal(monitor))

    def _mortal(self, monitor: Monitor) -> Monitor:
        """Each step is one at which the container may end."""

        def cancelled() -> bool:
            self._ends()
            return monitor.cancel is not None and monitor.cancel()

        return Monitor(monitor.progress, cancelled)

    def free_memory(self) -> None:
        HostedFake.freed += 1


class EmulatedHost(ModelHost):
    """The real host, whose model is the fake; what `broken` raises its start raises."""

    def __init__(self, modal: EmulatedModal, generator: HostedFake) -> None:
        super().__init__(modal.settings, Path("nowhere"), "cpu", modal.progress_table)
        self._generator = generator  # type: ignore[assignment]
        self._modal = modal

    def load_cpu(self) -> None:
        if self._modal.start_fails is not None:
            raise self._modal.start_fails

    def to_device(self) -> None:
        """The fake is everywhere."""


class TableOfBytes:
    """A `modal.Dict`: what is put in is a copy."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.puts = 0

    def get(self, key: str, default: Any = None) -> Any:
        return pickle.loads(self.values[key]) if key in self.values else default

    def put(self, key: str, value: Any) -> None:
        self.puts += 1
        self.values[key] = pickle.dumps(value)


@dataclass
class Call:
    id: str
    kind: str
    arguments: bytes
    result: bytes | None = None
    error: BaseException | None = None
    thread: int | None = None
    runs: int = 0
    done: threading.Event = field(default_factory=threading.Event)


class EmulatedModal:
    """Implements `Calls`. `paused` holds back the containers; `broken` makes Modal unreachable."""

    def __init__(
        self,
        settings: DeploySettings | None = None,
        step_seconds: float = 0.0,
        containers: int = 1,
        **generator: Any,
    ) -> None:
        self.generator = {"step_seconds": step_seconds, **generator}
        """How the containers' fake generator is made."""

        self.settings = settings or DeploySettings()
        self.progress_table = TableOfBytes()
        self.jobs = TableOfBytes()
        self.calls: dict[str, Call] = {}
        self.spawned: list[str] = []
        self.asked: Counter[str] = Counter()
        self.manifest_now: Manifest | Exception = MANIFEST
        self.broken = False
        self.expired: set[str] = set()
        self.preempt_next = 0
        self.ends: deque[type[BaseException]] = deque()
        """How containers end, each at the next step of whichever runs a job."""

        self.containers_made = 0
        self.start_fails: BaseException | None = None
        self.deployment = "first"
        self._inbox: queue.Queue[Call | None] = queue.Queue()
        self._running = threading.Event()
        self._running.set()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(containers)]
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        self.resume()
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads:
            thread.join(10)

    # --- the protocol ------------------------------------------------------------------------------------

    async def spawn(
        self, kind: Any, settings: dict[str, Any], payload: bytes | None, source: str | None
    ) -> str:
        self._reach("spawn")
        call = Call(f"fc-{len(self.calls):04d}", kind, pickle.dumps((settings, payload, source)))
        self.calls[call.id] = call
        self.spawned.append(call.id)
        self._inbox.put(call)
        return call.id

    async def outcome(self, call: str) -> CallOutcome:
        self._reach("outcome")
        found = self.calls[call]
        if call in self.expired:
            return CallOutcome("expired")
        if not found.done.is_set():
            return PENDING
        if found.error is not None:
            state = "timeout" if isinstance(found.error, modal_errors.FunctionTimeoutError) else "error"
            return CallOutcome(state, detail=repr(found.error))
        return CallOutcome("returned", pickle.loads(found.result or b""))

    def preempt_running(self) -> None:
        """Take away the containers that run a call."""
        for call in self.calls.values():
            if call.thread is not None:
                _raise_in(call.thread, PreemptedError)

    async def cancel(self, call: str) -> None:
        self._reach("cancel")
        found = self.calls[call]
        if found.done.is_set():
            return
        if found.thread is None:
            self._finish(found, error=modal_errors.RemoteError("cancelled"))
            return
        _raise_in(found.thread, modal_errors.InputCancellation)

    async def progress(self, call: str) -> object:
        self._reach("progress")
        return self.progress_table.get(call)

    async def capabilities(self) -> Capabilities:
        async def started() -> Start:
            return Start.load(self.progress_table.get(START_KEY), self.deployment)

        return await capabilities_of(self.manifest, self.settings, started)

    async def manifest(self) -> Manifest:
        self._reach("manifest")
        if isinstance(self.manifest_now, Exception):
            raise self.manifest_now
        return self.manifest_now

    async def records(self) -> list[dict[str, Any]]:
        self._reach("records")
        return [self.jobs.get(key) for key in list(self.jobs.values)]

    async def record(self, job: str) -> dict[str, Any] | None:
        self._reach("record")
        found: dict[str, Any] | None = self.jobs.get(job)
        return found

    async def claim(self, job: str, record: dict[str, Any]) -> bool:
        self._reach("claim")
        if job in self.jobs.values:
            return False
        self.jobs.put(job, record)
        return True

    async def save(self, job: str, record: dict[str, Any]) -> None:
        self._reach("save")
        self.jobs.put(job, record)

    async def forget(self, job: str) -> None:
        self._reach("forget")
        self.jobs.values.pop(job, None)

    def _reach(self, what: str) -> None:
        self.asked[what] += 1
        if self.broken:
            raise UnavailableError("the platform cannot be reached; try again", retry_after=10)

    # --- containers --------------------------------------------------------------------------------------

    def _container(self) -> Container:
        """A container that is up; those that end while they start are followed by others."""
        while True:
            self.containers_made += 1
            os.environ["MODAL_TASK_ID"] = f"ta-{self.containers_made}"
            record = StartRecord(self.progress_table, self.deployment, len(self._threads))
            generator = HostedFake(self._end_if_asked, **self.generator)
            container = Container(lambda made=generator: EmulatedHost(self, made), record)  # type: ignore[misc]
            try:
                container.before_snapshot()
                container.after_restore()
            except (Exception, KilledError):
                assert self.containers_made < MOST_STARTS, "starts without end"
                continue
            return container

    def _end_if_asked(self) -> None:
        with contextlib.suppress(IndexError):
            raise self.ends.popleft()

    def _serve(self) -> None:
        container: Container | None = None
        deployment = ""
        while (call := self._inbox.get()) is not None:
            self._running.wait()
            if call.done.is_set():
                continue
            if container is None or deployment != self.deployment:
                deployment, container = self.deployment, self._container()
            call.runs += 1
            call.thread = threading.get_ident()
            try:
                self._finish(call, result=pickle.dumps(self._run(container, call)))
            except (KilledError, PreemptedError) as error:
                if isinstance(error, KilledError):  # which nobody in the container saw coming
                    entry = self.progress_table.get(call.id)
                    self.progress_table.put(call.id, entry | {"left": False})
                container = call.thread = None
                self._inbox.put(call)
            except DeviceLostError as error:
                container = call.thread = None
                if call.runs <= self.settings.gpu_class_options()["retries"]:
                    self._inbox.put(call)
                else:
                    self._finish(call, error=error)
            except modal_errors.InputCancellation:
                self._finish(call, error=modal_errors.RemoteError("cancelled"))

    def redeploy(self) -> None:
        """Another deploy: its containers are new, and what was wrong is mended."""
        self.deployment, self.start_fails = f"{self.deployment} and another", None

    def _run(self, container: Container, call: Call) -> Any:
        settings, payload, source = pickle.loads(call.arguments)

        def load() -> bytes:
            if self.preempt_next > 0:
                self.preempt_next -= 1
                raise PreemptedError
            if payload is not None:
                return bytes(payload)
            made = pickle.loads(self.calls[source].result or b"")
            return state_of(made, (settings or {}).get("variant", 1))

        _current_function_call_id.set(call.id)
        return run_call(container, call.kind, settings, load)  # type: ignore[arg-type]

    def _finish(self, call: Call, result: bytes | None = None, error: BaseException | None = None) -> None:
        call.result, call.error, call.thread = result, error, None
        call.done.set()


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def wait_for_call(modal: EmulatedModal, call: str, seconds: float = 20.0) -> None:
    assert modal.calls[call].done.wait(seconds), f"{call} did not end"


def until(check: Any, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        threading.Event().wait(0.01)
