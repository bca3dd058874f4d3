"""Deadlines for the head of a reply, and for each piece of its body.

httpx has one for each read alone: a service that sends a byte a minute, of a head or of the framing of a
body, would hold a caller for ever, and so would one that sends interim replies (1xx) without end. Here the
head has the request's `read` seconds from the end of the request on, and each piece of the body as many.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

MAX_FRAMING = 1 << 20
"""The most bytes of a head, interim replies included, or before the next piece of a body."""

LATE = "the reply did not come in time"
BEGUN = "receive_response_headers.started"
DONE = ("receive_response_headers.complete", "receive_response_headers.failed")


@dataclass
class _Awaited:
    """What is being received: until when, and how many bytes it may still have."""

    deadline: float
    left: int = MAX_FRAMING

    @classmethod
    def by(cls, request: httpx.Request) -> _Awaited:
        return cls(time.monotonic() + _seconds(request))


_awaited: ContextVar[_Awaited | None] = ContextVar("awaited", default=None)


def send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The reply, its body unread. Raises `httpx.TransportError`; `limit_reads` must know the client."""

    def trace(name: str, info: dict[str, Any]) -> None:
        if name.endswith(BEGUN):
            _awaited.set(_Awaited.by(request))
        elif name.endswith(DONE):
            _awaited.set(None)

    request.extensions["trace"] = trace
    return client.send(request, stream=True)


async def send_async(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """See `send`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:

            async def trace(name: str, info: dict[str, Any]) -> None:
                if name.endswith(BEGUN):
                    limit.reschedule(loop.time() + _seconds(request))
                elif name.endswith(DONE) and not limit.expired():
                    limit.reschedule(None)

            request.extensions["trace"] = trace
            return await client.send(request, stream=True)
    except TimeoutError as error:
        raise httpx.ReadTimeout(LATE, request=request) from error


def chunk(response: httpx.Response) -> bytes:
    """The next piece of a body as it comes, b"" at its end. Raises `httpx.TransportError`."""
    pieces: Iterator[bytes] = _pieces(response, response.iter_raw)
    _awaited.set(_Awaited.by(response.request))
    try:
        return next(pieces, b"")
    finally:
        _awaited.set(None)  # the caller may take its time


async def chunk_async(response: httpx.Response) -> bytes:
    """See `chunk`."""
    pieces: AsyncIterator[bytes] = _pieces(response, response.aiter_raw)
    try:
        async with asyncio.timeout(_seconds(response.request)):
            return await anext(pieces, b"")
    except TimeoutError as error:
        raise httpx.ReadTimeout(LATE, request=response.request) from error


def _pieces(response: httpx.Response, begin: Callable[[], Any]) -> Any:
    """The one iterator over a body, kept with its reply."""
    if "pieces" not in response.extensions:
        response.extensions["pieces"] = begin()
    return response.extensions["pieces"]


def _seconds(request: httpx.Request) -> float:
    return float(request.extensions["timeout"]["read"])


def limit_reads(client: httpx.Client) -> None:
    """Let the connections of a client mind the deadline: httpx has no public way to give it a backend."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)


class _Wrapped:
    """One of httpcore's objects; what is not defined here is its own. httpx imports httpcore late, and so do
    we."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Backend(_Wrapped):
    def connect_tcp(self, *args: Any, **options: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(*args, **options))


class _Stream(_Wrapped):
    def start_tls(self, *args: Any, **options: Any) -> _Stream:
        return _Stream(self._inner.start_tls(*args, **options))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        awaited = _awaited.get()
        if awaited is None:
            return bytes(self._inner.read(max_bytes, timeout))
        left = awaited.deadline - time.monotonic()
        if left <= 0 or awaited.left <= 0:
            import httpcore

            raise httpcore.ReadTimeout(LATE)
        data = bytes(self._inner.read(max_bytes, left if timeout is None else min(timeout, left)))
        awaited.left -= len(data)
        return data
