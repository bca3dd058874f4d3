"""The server's handle on a worker: start it, talk to it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LINE_LIMIT = 8 << 20
PILED_UP = 1.5
"""Seconds for reading what came while this process stood still, a heartbeat at least."""


@dataclass(frozen=True)
class WorkerSpec:
    """How a worker makes its generator: a `module:function` and the keyword arguments for it."""

    factory: str = "trellis2_modal.service.generator:create"
    options: dict[str, Any] = field(default_factory=dict)


class WorkerEnded(Exception):  # noqa: N818  (what happened, and not always a fault)
    """The worker's process is gone."""


class WorkerSilent(Exception):  # noqa: N818
    """The worker sent nothing, not even a heartbeat, for too long."""


class WorkerProcess:
    """One worker process. One task receives; any may send."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, spec: WorkerSpec, data_dir: Path) -> WorkerProcess:
        """Start the process; it says `ready` when the model is loaded."""
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trellis2_modal.jobs.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            env=env,
        )
        worker = cls(process)
        level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
        first = {
            "factory": spec.factory,
            "options": spec.options,
            "data_dir": str(data_dir),
            "log_level": level,
        }
        await worker._write(first)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, kind: str, /, **members: Any) -> None:
        """Raises `WorkerEnded`."""
        await self._write({"type": kind, **members})

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(message) + "\n").encode())
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerEnded("the pipe to the worker is closed") from error

    async def receive(self, timeout: float) -> dict[str, Any]:
        """The next message (heartbeats included); raises `WorkerEnded` or `WorkerSilent`."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):  # `wait_for` before Python 3.12 may swallow a cancellation
                line = await self._process.stdout.readline()
        except TimeoutError:
            # perhaps it was this process that stood still: then heartbeats have piled up in the pipe
            try:
                line = await asyncio.wait_for(self._process.stdout.readline(), PILED_UP)
            except TimeoutError as error:
                raise WorkerSilent(f"no heartbeat for {timeout:.0f} s") from error
        if not line.endswith(b"\n"):
            code = await self._process.wait()
            raise WorkerEnded(f"exit code {code}" if code >= 0 else f"killed by signal {-code}")
        message: dict[str, Any] = json.loads(line)
        return message

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def quit(self, grace: float) -> None:
        """Let the running job end for `grace` seconds, then kill."""
        try:
            await self.send("quit")
            await asyncio.wait_for(self._process.wait(), grace)
        except (TimeoutError, WorkerEnded):
            logger.info("the worker did not end within %.0f s: killed", grace)
        await self.kill()
