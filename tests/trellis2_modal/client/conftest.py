"""The app over the engine in memory, and both clients in front of it, waiting for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal.client.service import KEY, URL, Service, photo, until
from trellis2_modal.client.api import AsyncClient, AsyncJob, Client, Retry, Waiting
from trellis2_modal.client.app.task_queue import TaskQueue
from trellis2_modal.client.history import Entry

QUICK = Retry(base=0.001, cap=0.002)


class Awaited:
    """An `AsyncClient` or `AsyncJob` that is waited for, so that one test serves both clients."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.inner, self._loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if name == "events":
            return lambda *args: self._loop.run_until_complete(_collect(value(*args)))
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            found = self._loop.run_until_complete(value(*args, **options))
            return Awaited(found, self._loop) if isinstance(found, AsyncJob) else found

        return call


async def _collect(events: Any) -> list[Any]:
    return [event async for event in events]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def waits() -> list[Waiting]:
    """What the clients say before they wait."""
    return []


@pytest.fixture(params=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, service: Service, waits: list[Waiting]
) -> Iterator[Callable[..., Any]]:
    """Makes a client of the service, blocking or asynchronous; sleeping takes no time."""
    loop = asyncio.new_event_loop()
    closers: list[Callable[[], Any]] = []

    def make(key: str | None = KEY, url: str = URL, **options: Any) -> Any:
        options = {"retry": QUICK, "on_wait": waits.append} | options
        if request.param == "sync":
            client = Client(url, key, transport=service.transport, sleep=lambda s: None, **options)
            closers.append(client.close)
            return client

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(0)

        awaited = AsyncClient(url, key, transport=service.transport, sleep=sleep, **options)
        closers.append(lambda: loop.run_until_complete(awaited.close()))
        return Awaited(awaited, loop)

    yield make
    for close in closers:
        close()
    loop.close()


@pytest.fixture
def client(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red disc.png"
    path.write_bytes(photo())
    return path


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, and an environment that says nothing about a service."""
    for name in ("TRELLIS2_URL", "TRELLIS2_API_KEY", "TRELLIS2_MODAL_KEY", "TRELLIS2_MODAL_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRELLIS2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRELLIS2_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "home"


@pytest.fixture
def open_task_queue(data_home: Path, service: Service) -> Iterator[Callable[..., TaskQueue]]:
    """Opens the app's task queue on the same folder as often as it is asked to."""
    opened: list[TaskQueue] = []

    def make(url: str | None = URL, key: str | None = KEY, **options: Any) -> TaskQueue:
        for task_queue in opened:
            task_queue.close()
        client_options = {"transport": service.transport, "retry": QUICK} | options
        opened.append(TaskQueue(data_home, url, key, client_options=client_options))
        return opened[-1]

    yield make
    service.release()
    for task_queue in opened:
        task_queue.close()


@pytest.fixture
def task_queue(open_task_queue: Callable[..., TaskQueue]) -> TaskQueue:
    return open_task_queue()


def ended(task_queue: TaskQueue, entry: Entry) -> Entry:
    """The entry as soon as nothing is left to do."""
    until(lambda: not task_queue.tasks(), "the end of the work")
    found = task_queue.history.get(entry.id)
    assert found is not None
    return found
