"""Connections of the local server: how many, how long a request head may take, and what happens when file
descriptors run out."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...protocol.errors import PROBLEM_MEDIA_TYPE, UnavailableError
from ...sockets import EXHAUSTED
from ..logs import Sparingly

logger = logging.getLogger(__name__)

HEAD_TIMEOUT = 20.0
"""Seconds that a connection may take for a request head: for its first one, and for each after a reply."""

WRITE_TIMEOUT = 60.0
"""Seconds in which a caller has to read something of a reply that it holds up."""

CLOSE_TIMEOUT = 5.0
"""Seconds for the last bytes of a connection that is being closed."""

SPARE_FILES = 128
"""Files that the server needs besides connections: pipes, databases, results that are being read."""


class Connection(H11Protocol):
    """A connection with times and a place among a bounded number.

    Always h11, whatever else is installed: it bounds the head and takes nothing that is not quite HTTP.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency
        super().connection_made(transport)
        if full:
            self.connections.discard(self)  # what is refused takes no place while it is being closed
            transport.write(_too_many())
            self._close()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._await_head()  # also bounds the rest of a body that nobody asked for
        super().on_response_complete()

    def _await_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # uvicorn's name for a request and its reply
            self._close()

    def pause_writing(self) -> None:
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def _close(self) -> None:
        self.transport.close()
        self._write_timer = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)


def _too_many() -> bytes:
    error = UnavailableError("too many connections; try again", retry_after=5)
    body = json.dumps(error.problem()).encode()
    head = (
        f"HTTP/1.1 {error.status} Service Unavailable\r\nContent-Type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def log_exhaustion_once(loop: asyncio.AbstractEventLoop) -> None:
    """One line a minute instead of a traceback for each time that accepting was put off."""
    lines = Sparingly()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
            loop.default_exception_handler(context)
        elif lines.due("exhausted"):
            logger.error("no more connections are accepted for the moment: %s", error.strerror)

    loop.set_exception_handler(handle)


def connection_limit(wanted: int) -> int:
    """How many connections fit into the files that this process may open."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft - SPARE_FILES))


def raise_file_limit(connections: int) -> None:
    """Ask the system for as many files as that many connections need; it may grant fewer."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


class BoundedServer(uvicorn.Server):
    """A server whose loop keeps calm when files run out."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        log_exhaustion_once(asyncio.get_running_loop())
        await super().startup(sockets)
