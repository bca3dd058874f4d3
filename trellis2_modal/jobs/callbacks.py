"""Tells the addresses that jobs name of their ends: tried again with growing pauses, each attempt in the job.

An attempt is stored after it was made, so a server that is killed in between makes it again: the message has
the same id then. How a message is sent is the service's matter (`Send`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from .engine import FINAL, Engine
from .job import Attempt, Job
from .ports import Query

logger = logging.getLogger(__name__)

OLDEST = 2 * 24 * 3600.0
"""Seconds after its end in which a job may still be told of by a server that starts."""

AT_ONCE = 8
PAUSE = 30.0


@dataclass(frozen=True)
class Sent:
    """What became of one attempt; after a `final` one there is no other."""

    attempt: Attempt
    delivered: bool
    final: bool = False


Send = Callable[[Job], Awaitable[Sent]]


class Callbacks:
    """One for an engine. `run` never ends; cancel it."""

    def __init__(self, engine: Engine, send: Send) -> None:
        self._engine, self._send = engine, send
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        engine.on_end(self._note)

    async def run(self) -> None:
        """Deliver what is due, and what an earlier server left."""
        await self._engine.opened()
        since = time.time() - OLDEST
        for job in await self._engine.table.query(Query(states=FINAL, ended_after=since)):
            self._note(job)
        try:
            while True:
                self._wake.clear()
                now = time.time()
                for job_id in [job_id for job_id, due in self._due.items() if due <= now]:
                    del self._due[job_id]
                    task = asyncio.create_task(self._deliver(job_id))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                pause = min([PAUSE, *(due - now for due in self._due.values())])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(pause, 0.01)):
                        await self._wake.wait()
        finally:
            for task in list(self._running):
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _note(self, job: Job) -> None:
        if job.callback is not None and job.callback.state == "waiting":
            self._due[job.id] = job.callback.due
            self._wake.set()

    async def _deliver(self, job_id: str) -> None:
        try:
            async with self._turns:
                job = await self._engine.table.get(job_id)
                if job is None or job.callback is None or job.callback.state != "waiting":
                    return
                sent = await self._send(job)
                await self._store(job_id, sent)
        except Exception:
            logger.exception("a callback of job %s failed; trying again", job_id)
            self._due[job_id] = time.time() + PAUSE

    async def _store(self, job_id: str, sent: Sent) -> None:
        """Add an attempt to the job."""
        delays = self._engine.settings.callback_delays
        while (job := await self._engine.table.get(job_id)) is not None and job.callback is not None:
            attempts = (*job.callback.attempts, sent.attempt)
            given_up = sent.final or len(attempts) > len(delays)
            state = "delivered" if sent.delivered else "failed" if given_up else "waiting"
            due = time.time() + delays[len(attempts) - 1] if state == "waiting" else 0.0
            callback = replace(job.callback, attempts=attempts, state=state, due=due)  # type: ignore[arg-type]
            new = replace(job, callback=callback, version=job.version + 1)
            if await self._engine.table.swap(job, new):
                facts = {"job": job_id, "status": sent.attempt.status, "attempt": len(attempts)}
                logger.info("callback %s", state, extra=facts)
                self._note(new)
                return
