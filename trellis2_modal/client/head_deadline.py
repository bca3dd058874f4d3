"""A deadline for the head of a reply.

httpx has one for each read alone: a service that sends a byte a minute would hold a caller for ever, and so
would one that sends interim replies (1xx) without end. Here a head has its time, from the end of the request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

HEAD_BYTES = 1 << 20
"""The most bytes of a head, interim replies included."""

BEGUN, DONE = "receive_response_headers.started", ("receive_response_headers.complete", ".failed")


@dataclass
class _Head:
    """The head that is being received: until when, and how many bytes it may still have."""

    deadline: float
    left: int = HEAD_BYTES


_head: ContextVar[_Head | None] = ContextVar("head", default=None)


def send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The reply, its body unread. Raises `httpx.TransportError`; `limit_reads` must know the client."""

    def trace(name: str, info: dict[str, Any]) -> None:
        if name.endswith(BEGUN):
            _head.set(_Head(time.monotonic() + _seconds(request)))
        elif name.endswith(DONE):
            _head.set(None)

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
        raise httpx.ReadTimeout("the head of the reply did not come in time", request=request) from error


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
        head = _head.get()
        if head is None:
            return self._inner.read(max_bytes, timeout)
        left = head.deadline - time.monotonic()
        if left <= 0 or head.left <= 0:
            raise httpcore.ReadTimeout("the head of the reply did not come in time")
        data = self._inner.read(max_bytes, left if timeout is None else min(timeout, left))
        head.left -= len(data)
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
