"""An ASGI app as the transport of both kinds of httpx client; replies come in pieces, as from a network.

(`httpx.ASGITransport` hands a reply over when it is whole, so an event stream would come at the job's end.)
Apps run on one loop of their own, in a thread, whatever loop their clients are on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, TypeVar

import httpx
from starlette.types import ASGIApp, Message

T = TypeVar("T")
PIECE = 17
END = None


@lru_cache
def apps_loop() -> asyncio.AbstractEventLoop:
    """The loop of all apps, in a thread that ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="apps", daemon=True).start()
    return loop


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run something on the apps' loop."""
    return asyncio.run_coroutine_threadsafe(work, apps_loop())


class AppTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """See the module. An exception of the app is raised where the client waits.

    `budget` says after how many bytes the network breaks under the reply to a request, if it does.
    """

    def __init__(
        self, app: ASGIApp, budget: Callable[[httpx.Request], int | None] = lambda request: None
    ) -> None:
        self._app, self._budget = app, budget

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return submit(self._begin(request, request.read())).result()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await asyncio.wrap_future(submit(self._begin(request, await request.aread())))

    async def _begin(self, request: httpx.Request, body: bytes) -> httpx.Response:
        exchange = _Exchange()
        exchange.start(self._app, request, body)
        head = await exchange.message()
        assert head is not END, "the app did not reply"
        stream = _Body(exchange, self._budget(request))
        return httpx.Response(head["status"], headers=head["headers"], stream=stream)


class _Exchange:
    """One request at the app. Every method runs on the apps' loop."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        self._gone = asyncio.Event()

    def start(self, app: ASGIApp, request: httpx.Request, body: bytes) -> None:
        self._task = asyncio.create_task(self._run(app, scope_of(request), [body]))

    async def _run(self, app: ASGIApp, scope: dict[str, Any], bodies: list[bytes]) -> None:
        async def receive() -> Message:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await self._messages.put(message)

        try:
            await app(scope, receive, send)
        except Exception as error:
            await self._messages.put(error)
        await self._messages.put(END)

    async def message(self) -> Message | None:
        found = await self._messages.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def piece(self) -> bytes | None:
        """The next part of the reply's body; None after the last."""
        found = await self.message()
        return END if found is END else bytes(found.get("body", b""))

    async def close(self) -> None:
        self._gone.set()
        await self._task


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, budget: int | None) -> None:
        self._exchange, self._budget = exchange, budget

    def __iter__(self) -> Iterator[bytes]:
        while (piece := submit(self._exchange.piece()).result()) is not END:
            yield from self._pieces(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await asyncio.wrap_future(submit(self._exchange.piece()))) is not END:
            for part in self._pieces(piece):
                yield part

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Small ones of what is short, such as events."""
        step = PIECE if len(data) < 4096 else len(data)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            if self._budget is not None:
                self._budget -= len(part)
                if self._budget < 0:
                    raise httpx.ReadError("the network is gone")
            yield part

    def close(self) -> None:
        submit(self._exchange.close()).result()

    async def aclose(self) -> None:
        await asyncio.wrap_future(submit(self._exchange.close()))


def scope_of(request: httpx.Request) -> dict[str, Any]:
    """The ASGI scope of a request, which it holds under "extensions" too."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 9),
        "extensions": {"request": request},
    }
