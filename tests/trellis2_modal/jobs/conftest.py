"""One engine over each set of ports, with the same handles for what a test does to it from outside."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal import fake
from tests.trellis2_modal.deploy.emulated import EmulatedModal
from tests.trellis2_modal.memory import ThreadRunner, memory_engine
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs import engine as engine_module
from trellis2_modal.jobs.engine import Engine
from trellis2_modal.jobs.job import NewJob
from trellis2_modal.jobs.local.assembly import local_engine
from trellis2_modal.jobs.modal import progress
from trellis2_modal.jobs.modal.ports import CallArtifacts, CallRunner, CallTable
from trellis2_modal.jobs.settings import JobSettings
from trellis2_modal.jobs.worker_process import WorkerSpec
from trellis2_modal.protocol.replies import FINAL_STATES, JobEvent, JobStatus

SETTINGS = JobSettings(event_interval=0.0, shutdown_grace=0.1, min_free_bytes=1 << 20)
NEW = NewJob("generate", {"seed": 1, "preview": "none"}, picture(), owner="anna", request_digest="digest")


async def until(check: Callable[[], Awaitable[Any]], what: str, seconds: float = 30.0) -> Any:
    """Poll until `check` gives something true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := await check()):
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.01)
    return found


@dataclass
class Rig:
    """An engine and its surroundings. Jobs wait in their first step until `release` is called."""

    engine: Engine
    gate: Path
    kill_worker: Callable[[], Awaitable[None]]

    def release(self) -> None:
        self.gate.touch()

    async def submit(self, **changes: Any) -> str:
        """A new job, as `NEW` but for some members; returns its id."""
        return (await self.engine.submit(replace(NEW, **changes))).id

    async def status(self, job: str, owner: str = "anna") -> JobStatus:
        return await self.engine.status(owner, job)

    async def running(self, job: str, attempt: int = 1) -> None:
        async def begun() -> bool:
            found = await self.status(job)
            return found.status == "running" and found.attempt == attempt and found.progress is not None

        await until(begun, f"the start of {job}")

    async def ended(self, job: str) -> JobStatus:
        async def over() -> JobStatus | None:
            found = await self.status(job)
            return found if found.status in FINAL_STATES else None

        found: JobStatus = await until(over, f"the end of {job}")
        return found

    async def events(self, job: str, after: int = 0) -> list[JobEvent]:
        return [event async for event in self.engine.events("anna", job, after)]


class Port:
    """Makes engines; a second one from the same port finds what the first has stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.generator: dict[str, Any] = {"gate": str(self.gate)}
        """How the fake generator is made."""

    def make(self, settings: JobSettings) -> tuple[Engine, Callable[[], Awaitable[None]]]:
        """An engine, and what kills its worker under the running job."""
        raise NotImplementedError

    def close(self) -> None:
        """End what outlives an engine."""

    @asynccontextmanager
    async def rig(self, **changes: Any) -> AsyncIterator[Rig]:
        engine, kill = self.make(replace(SETTINGS, **changes))
        await engine.start()

        async def ready() -> bool:
            return engine.capabilities().state == "ready"

        try:
            await until(ready, "the worker")
            yield Rig(engine, self.gate, kill)
        finally:
            self.gate.touch()
            await engine.close()


class LocalPort(Port):
    def make(self, settings: JobSettings) -> tuple[Engine, Callable[[], Awaitable[None]]]:
        spec = WorkerSpec("tests.trellis2_modal.fake:create", self.generator)

        async def kill() -> None:
            os.kill(int((self.folder / "worker.lock").read_text()), signal.SIGKILL)

        return local_engine(spec, settings, self.folder), kill


class MemoryPort(Port):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._last: Engine | None = None

    def make(self, settings: JobSettings) -> tuple[Engine, Callable[[], Awaitable[None]]]:
        generator = fake.create(**self.generator)
        generator.crash = fake.die
        engine = memory_engine(generator, settings)
        if self._last is not None:
            artifacts: Any = self._last.artifacts
            engine = Engine(
                self._last.table, ThreadRunner(generator, artifacts, settings), artifacts, settings
            )
        self._last = engine
        runner: Any = engine.runner

        async def kill() -> None:
            runner.kill()

        return engine, kill


class ModalPort(Port):
    """The ports on Modal over its emulation: containers are threads with the real `ModelHost`."""

    @cached_property
    def modal(self) -> EmulatedModal:
        return EmulatedModal(**self.generator)

    def make(self, settings: JobSettings) -> tuple[Engine, Callable[[], Awaitable[None]]]:
        artifacts = CallArtifacts(self.modal)
        runner = CallRunner(self.modal, artifacts, settings)

        async def kill() -> None:
            self.modal.preempt_running()

        return Engine(CallTable(self.modal), runner, artifacts, settings), kill

    def close(self) -> None:
        self.gate.touch()
        self.modal.stop()


PORTS: dict[str, type[Port]] = {"local": LocalPort, "modal": ModalPort, "memory": MemoryPort}


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    monkeypatch.setattr(engine_module, "WATCH_INTERVAL", 0.05)
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.05)
    monkeypatch.setattr(progress, "WRITE_INTERVAL", 0.0)
    port = PORTS[request.param](tmp_path)
    yield port
    port.close()
