"""The app in this process over the service in memory: a page within a second, a generation in an instant."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from tests.trellis2_modal.client.conftest import QUICK
from tests.trellis2_modal.client.service import KEY, URL, Service
from tests.trellis2_modal.server import wait_for
from trellis2_modal.client.app.launch import make_app
from trellis2_modal.client.app.task_queue import TaskQueue
from trellis2_modal.sockets import listen

GRADIO_WARNS = pytest.mark.filterwarnings("ignore::Warning")
"""What Gradio and its packages warn of, in this process, would be errors."""


@dataclass
class MemoryApp:
    """Where the page is, what it works at, and the service behind it."""

    address: str
    task_queue: TaskQueue
    service: Service


@contextmanager
def memory_app(home: Path) -> Iterator[MemoryApp]:
    service = Service()
    service.start()
    options = {"transport": service.transport, "retry": QUICK}
    task_queue = TaskQueue(home, URL, KEY, client_options=options)
    config = uvicorn.Config(make_app(task_queue), log_config=None, timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started or None, "the app's start", 60.0)
        try:
            yield MemoryApp(f"http://127.0.0.1:{listener.getsockname()[1]}", task_queue, service)
        finally:
            service.release()
            task_queue.close()
            server.should_exit = True
            thread.join(20)
            service.stop()
