"""The client against a service that lies: every fault is a `ServiceError`, and no reply is without bounds."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from trellis2_modal.client.api import AsyncClient, Client, Retry, Timeouts
from trellis2_modal.client.errors import NoReplyError
from trellis2_modal.client.http import core
from trellis2_modal.client.http.events import MAX_EVENT_BYTES, Decoder
from trellis2_modal.protocol.errors import ServiceError

JOB = (
    '{"id":"job_1","kind":"extract","status":"finished","created":"2025-01-01T00:00:00Z",'
    '"settings":{"format":"exe"},"attempt":1,"result":{"artifacts":{},"stats":{}}}'
)


class Endless(httpx.SyncByteStream):
    def __init__(self, chunk: bytes) -> None:
        self.chunk, self.sent = chunk, 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.sent += len(self.chunk)
            yield self.chunk


def client_of(response: httpx.Response) -> Client:
    transport = httpx.MockTransport(lambda request: response)
    return Client("http://x", "sk_x", transport=transport, retry=Retry(attempts=1), sleep=lambda s: None)


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, stream=Endless(b" " * 65536)),
        httpx.Response(500, stream=Endless(b" " * 65536)),
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Endless(gzip.compress(bytes(9999)))),
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip")),
        httpx.Response(500, headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"x")),
        httpx.Response(303, headers={"location": "http://[x"}),
        httpx.Response(303, headers={"location": "http://x:99999999/"}),
        httpx.Response(500, text="[" * 100_000),
        httpx.Response(200, text='{"a":' * 100_000),
        httpx.Response(503, headers={"retry-after": b"\xb2"}),
        httpx.Response(503, headers={"retry-after": "9" * 400}),
        httpx.Response(503, headers={"retry-after": "Mon, 99 Jan 99999 00:00:00 GMT"}),
        httpx.Response(400, json={"type": "unavailable", "detail": 1, "status": [], "errors": {"a": 1}}),
    ],
    ids=range(13),
)
def test_every_fault_is_a_service_error(response: httpx.Response) -> None:
    start = time.process_time()
    with client_of(response) as client, pytest.raises(ServiceError):
        client.usage()
    assert time.process_time() - start < 5
    if isinstance(response.stream, Endless):
        assert response.stream.sent <= core.MAX_REPLY + 65536


def test_a_format_that_there_is_not() -> None:
    with client_of(httpx.Response(200, text=JOB)) as client, pytest.raises(ServiceError, match="format"):
        client.job("job_1").result()


def test_a_reply_that_trickles_is_given_up() -> None:
    now = [0.0]
    body = core.Body(httpx.Response(200, request=httpx.Request("GET", "http://x")), 1 << 20, lambda: now[0])

    def trickle() -> None:
        for _ in range(100):
            body.feed(b"x")
            now[0] += 1

    with pytest.raises(ServiceError, match="in 61 s"):
        trickle()


def trickle(listener: socket.socket, over: threading.Event) -> None:
    """Answers without an end: a byte every 20 ms, or interim replies as fast as they are taken."""
    while not over.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        kind = connection.recv(65536).split(b"/")[1]
        first, more = {
            b"head": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
            b"interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
            b"framing": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=", b"x"),
        }[kind]
        try:
            connection.sendall(first)
            while not over.wait(0.0 if len(more) > 1 else 0.02):
                connection.sendall(more)
        except OSError:
            pass
        finally:
            connection.close()


@pytest.mark.parametrize("path", ["head", "interim", "framing"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_reply_that_never_ends_has_its_time(path: str, kind: str) -> None:
    over = threading.Event()
    timeouts = Timeouts(read=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=trickle, args=(listener, over), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/{path}"

        async def ask_async() -> None:
            async with AsyncClient(url, "sk_x", timeouts=timeouts, retry=Retry(attempts=1)) as client:
                await client.usage()

        def ask() -> None:
            with Client(url, "sk_x", timeouts=timeouts, retry=Retry(attempts=1)) as client:
                client.usage()

        call = ask if kind == "sync" else lambda: asyncio.run(ask_async())
        try:
            with pytest.raises(NoReplyError):
                call()
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            server.join(10)
            assert not server.is_alive()


@pytest.mark.parametrize("chunk", [b"x" * 65536, b"data: " + b"x" * 1000 + b"\n"])
def test_an_event_without_end(chunk: bytes) -> None:
    decoder = Decoder()
    start = time.process_time()

    def feed() -> None:
        for _ in range(MAX_EVENT_BYTES // len(chunk) + 2):
            decoder.feed(chunk)

    with pytest.raises(ServiceError, match="without end"):
        feed()
    assert time.process_time() - start < 5
