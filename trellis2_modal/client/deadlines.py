"""Deadlines for the head of a reply, and for each piece of its body.

httpx has one for each read alone: a service that sends a byte a minute, of a head or of the framing of a
body, would hold a caller for ever, and so would one that sends interim replies (1xx) without end. Here the
head has the request's `read` seconds from the end of the request on, and each piece of the body as many.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
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


def chunks(response: httpx.Response) -> Iterator[bytes]:
    """The pieces of a body as they come. Raises `httpx.TransportError`."""
    pieces = response.iter_raw()
    while True:
        _awaited.set(_Awaited.by(response.request))
        try:
            piece = next(pieces)
        except StopIteration:
            return
        finally:
            _awaited.set(None)  # the caller may take its time
        yield piece


async def chunks_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """See `chunks`."""
    pieces = response.aiter_raw()
    while True:
        try:
            async with asyncio.timeout(_seconds(response.request)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise httpx.ReadTimeout(LATE, request=response.request) from error
        yield piece


def _seconds(request: httpx.Request) -> float:
    return float(request.extensions["timeout"]["read"])


def limit_reads(client: httpx.Client) -> None:
    """Let the connections of a client mind the deadline: httpx has no public way to give it a backend."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        awaited = _awaited.get()
        if awaited is None:
            return self._inner.read(max_bytes, timeout)
        left = awaited.deadline - time.monotonic()
        if left <= 0 or awaited.left <= 0:
            raise httpcore.ReadTimeout(LATE)
        data = self._inner.read(max_bytes, left if timeout is None else min(timeout, left))
        awaited.left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
