"""Jobs on the ports of Modal under kills of containers and gateways: none is lost, none is made twice but by
a gateway that dies between the platform's answer and its note of it.

`python -m tests.trellis2_modal.deploy.kills [JOBS [KILLS]]` prints figures, by default of 200 jobs, 13 kills.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.trellis2_modal.deploy.emulated import EmulatedModal, PreemptedError
from tests.trellis2_modal.fake import KilledError
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs import engine
from trellis2_modal.jobs.engine import Engine
from trellis2_modal.jobs.job import NewJob
from trellis2_modal.jobs.modal.ports import CallArtifacts, CallRunner, CallTable
from trellis2_modal.jobs.settings import JobSettings
from trellis2_modal.protocol.errors import QueueFullError, ServiceError, UnavailableError
from trellis2_modal.protocol.replies import FINAL_EVENTS, FINAL_STATES
from trellis2_modal.service.config import DeploySettings

T = TypeVar("T")
CALLERS, CONTAINERS = 4, 2
SETTINGS = JobSettings(event_interval=0.0, shutdown_grace=0.0, queue_limit=256)
PICTURE = picture()


@dataclass
class Figures:
    """What became of the jobs. `lost`: neither ended nor known, or failed without being at fault."""

    jobs: int = 0
    finished: int = 0
    cancelled: int = 0
    lost: int = 0
    twice: int = 0
    """Jobs that ran to their end more than once."""

    orphans: int = 0
    """Calls that a gateway was killed over before it could note them: the platform runs them for nobody."""

    ends: int = 0
    """Jobs with another number of final events than one."""

    container_kills: int = 0
    gateway_kills: int = 0
    attempts: int = 0
    seconds: float = 0.0


class Line:
    """What one gateway reaches Modal through. Calls take time, before and after they take effect.

    Once it is `cut`, as by `kill -9` of the gateway, nothing of it gets through any more.
    """

    def __init__(self, modal: EmulatedModal) -> None:
        self._modal, self.cut = modal, False

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def reach(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            if self.cut:
                raise UnavailableError("this gateway was killed")
            reply = await getattr(self._modal, name)(*arguments)
            await asyncio.sleep(0)
            return reply

        return reach


class Storm:
    """Callers, a gateway that is replaced, and containers that end, over one emulated Modal."""

    def __init__(self, modal: EmulatedModal, jobs: int, kills: int, seed: int) -> None:
        self.modal, self.jobs, self.kills = modal, jobs, kills
        self.chance = random.Random(seed)
        self.owners: dict[str, str] = {}
        self.wanted_gone: set[str] = set()
        self.figures = Figures(jobs)
        self._calls: set[asyncio.Future[Any]] = set()

    async def run(self) -> None:
        self.engine = await self._gateway()
        killer = asyncio.create_task(self._kill())
        await asyncio.gather(*(self._caller(n) for n in range(CALLERS)))
        await killer
        for job in list(self.owners):
            await self._look(job)
        await self.engine.close()

    async def _gateway(self) -> Engine:
        self.line: Any = Line(self.modal)
        artifacts = CallArtifacts(self.line)
        runner = CallRunner(self.line, artifacts, SETTINGS)
        made = Engine(CallTable(self.line), runner, artifacts, SETTINGS)
        await made.start()
        return made

    async def call(self, ask: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Ask the gateway; again when it is killed meanwhile or has no room."""
        while True:
            asked = asyncio.ensure_future(ask(self.engine))
            self._calls.add(asked)
            try:
                return await asked
            except asyncio.CancelledError:
                if not asked.cancelled():
                    raise
            except (QueueFullError, UnavailableError):
                pass
            finally:
                self._calls.discard(asked)
            await asyncio.sleep(0.005)

    async def _caller(self, number: int) -> None:
        owner = f"key_{number}"
        for seed in range(number, self.jobs, CALLERS):
            new = NewJob(
                "generate", {"seed": seed, "preview": "none"}, PICTURE, owner=owner, request_digest=f"{seed}",
                idempotency_key=f"{seed}", max_active=64,
            )  # fmt: skip
            job = (await self.call(lambda engine, new=new: engine.submit(new))).id  # type: ignore[misc]
            self.owners[job] = owner
            if self.chance.random() < 0.05:
                self.wanted_gone.add(job)
                await self.call(lambda engine, job=job: engine.cancel(owner, job))  # type: ignore[misc]

    async def _kill(self) -> None:
        for number in range(self.kills):
            share = self.jobs * (number + 1) // (self.kills + 1)
            while sum(call.done.is_set() for call in self.modal.calls.values()) < share:
                await asyncio.sleep(0.002)
            if number % 4 == 3:
                self.figures.gateway_kills += 1
                self.line.cut = True
                for task in (*self.engine._tasks, *self._calls):
                    task.cancel()
                self.engine = await self._gateway()
            else:
                self.figures.container_kills += 1
                self.modal.ends.append(KilledError if number % 2 else PreemptedError)

    async def _look(self, job: str) -> None:
        owner, figures = self.owners[job], self.figures
        try:
            while (done := await self.engine.status(owner, job)).status not in FINAL_STATES:
                await asyncio.sleep(0.005)
            events = [event.type async for event in self.engine.events(owner, job)]
        except ServiceError:
            figures.lost += 1
            return
        figures.attempts += done.attempt
        figures.finished += done.status == "finished"
        figures.cancelled += done.status == "cancelled"
        figures.lost += done.status == "failed" or (
            done.status == "cancelled" and job not in self.wanted_gone
        )
        figures.ends += len([kind for kind in events if kind in FINAL_EVENTS]) != 1
        if done.status == "finished":
            file = await self.engine.result(owner, job, "state")
            assert file.size == len(file.read())


def storm(jobs: int, kills: int, seed: int = 4) -> Figures:
    """Run it and count."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        deploy = DeploySettings(gpu_max_attempts=6)  # a job that is at fault is not what is looked for
        modal = EmulatedModal(deploy, containers=CONTAINERS, step_seconds=0.001, journal=str(journal))
        began = time.monotonic()
        before, engine.UNSTARTED = engine.UNSTARTED, 0.2
        try:
            there = Storm(modal, jobs, kills, seed)
            asyncio.run(there.run())
        finally:
            engine.UNSTARTED = before
            modal.stop()
        runs = Counter(journal.read_text().splitlines())
        known = {modal.jobs.get(job)["handle"] for job in list(modal.jobs.values)}
        there.figures.orphans = len(modal.calls.keys() - known)
        there.figures.twice = sum(count > 1 for count in runs.values())
        there.figures.seconds = round(time.monotonic() - began, 2)
        assert not modal.ends, "every kill has met a container"
        return there.figures


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]] or [200]
    print(json.dumps(asdict(storm(given[0], given[1] if len(given) > 1 else 13))))
