"""Work on a stranger's bytes in a process of its own, which is killed when it takes too long.

`ChildProcess` is the server's side: it starts the process at the first call, gives it one thing at a time and
replaces one that is stuck or dead. `serve_frames` is the process: it ends when stdin closes, so it never
outlives its server. A frame is 8 bytes of length and the bytes; a status byte stands before a reply's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0
"""Seconds until the process has imported what it needs; they do not count against its first deadline."""

OK, BAD, READY = b"\0", b"\1", b"\2"


class ChildGone(Exception):  # noqa: N818  (what happened)
    """The process did not answer: it died, or was killed at its deadline (`late`)."""

    def __init__(self, late: bool) -> None:
        super().__init__("took too long" if late else "ended")
        self.late = late


class ChildProcess:
    """`python -m module argument`, one call at a time; close it when the server stops."""

    def __init__(self, module: str, argument: str = "") -> None:
        self._command = ["-m", module, argument]
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def ask(self, data: bytes, deadline: float) -> tuple[bool, bytes]:
        """Whether it went well, and the reply; raises `ChildGone` after `deadline` seconds of work."""
        async with self._lock:
            try:
                process = await asyncio.wait_for(self._running(), START_TIMEOUT)
                status, reply = await asyncio.wait_for(_exchange(process, data), deadline)
            except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
                await self.end()
                raise ChildGone(isinstance(error, TimeoutError)) from error
            except BaseException:
                await self.end()  # its reply would be taken for that of the next call
                raise
        return status == OK, reply

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
            )
            await _receive(self._process)  # READY
        return self._process

    async def end(self) -> None:
        """Kill the process; the next call starts another."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


async def _exchange(process: asyncio.subprocess.Process, data: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None
    process.stdin.write(struct.pack("<Q", len(data)))
    process.stdin.write(data)
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    head = await process.stdout.readexactly(9)
    return head[:1], await process.stdout.readexactly(struct.unpack("<Q", head[1:])[0])


def serve_frames(work: Callable[[bytes], tuple[bytes, bytes]], replies: BinaryIO) -> int:
    """Answer what comes on stdin with `work`'s status and reply until that closes; see `claim_stdout`."""
    try:
        _send(replies, READY, b"")
        while (data := _read_frame(sys.stdin.buffer)) is not None:
            _send(replies, *work(data))
    except BrokenPipeError:
        os._exit(0)  # nothing is left to flush to
    return 0


def claim_stdout() -> BinaryIO:
    """Stdout for replies alone: whatever prints goes to the log."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def limit_memory(ceiling: int) -> None:
    """Where the system can (not on Windows or macOS), no more than `ceiling` bytes of address space."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(
            resource.RLIMIT_AS, (ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard), hard)
        )


def _send(stream: BinaryIO, status: bytes, reply: bytes) -> None:
    stream.write(status + struct.pack("<Q", len(reply)) + reply)
    stream.flush()


def _read_frame(stream: BinaryIO) -> bytes | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = struct.unpack("<Q", head)[0]
    data = stream.read(size)
    return data if len(data) == size else None
