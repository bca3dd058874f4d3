"""A real uvicorn for tests: in a thread (fast, one per module) or in a process that can be killed.

`python -m tests.trellis2_modal.server DATA_DIR PORT [JSON]` is that process.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from PIL import Image, ImageDraw

from trellis2_modal.jobs.locks import private_folder
from trellis2_modal.jobs.worker_process import WorkerSpec
from trellis2_modal.service.auth import KeyAdmin, local_admin
from trellis2_modal.service.config import Settings
from trellis2_modal.service.http.server import Server, make_server
from trellis2_modal.sockets import listen

T = TypeVar("T")

FAKE = "tests.trellis2_modal.fake:create"
MATTE = {"name": "GrabCutMatting", "args": {}}


def wait_for(check: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """Poll until `check` gives something true; fails naming what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


def picture(size: int = 64, seed: int = 0, format: str = "PNG") -> bytes:
    """A small picture of a disc."""
    image = Image.new("RGB", (size, size), (240, 240, 240))
    colour = (40 * seed % 256, 90, 200)
    ImageDraw.Draw(image).ellipse((size // 5, size // 5, size * 4 // 5, size * 4 // 5), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@dataclass
class Running:
    """A server that listens: its address, its key list and one key with every scope."""

    url: str
    data_dir: Path
    admin: KeyAdmin
    key: str
    server: Server | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client with a key in its headers ("" for none)."""
        secret = self.key if key is None else key
        headers = {"X-API-Key": secret} if secret else {}
        return httpx.Client(base_url=self.url, headers=headers, **{"timeout": 30, **options})

    def new_key(self, name: str = "another", **options: Any) -> str:
        options = {"requests_per_minute": 100_000, "gpu_seconds_per_day": 1e6} | options
        return self.admin.create(name, **options)[1]


def settings_for(data_dir: Path, **overrides: Any) -> Settings:
    """Settings that do not wait: no environment, short times."""
    quick: dict[str, Any] = {
        "keys_ttl": 0.0,
        "shutdown_grace": 2.0,
        "min_free_bytes": 1 << 20,
        "reads_per_minute": 1_000_000,
        "mattes_per_minute": 1_000,
        "event_interval": 0.0,
    }
    return Settings(data_dir=data_dir, **(quick | overrides))


@contextmanager
def running(
    data_dir: Path,
    factory: str = FAKE,
    options: dict[str, Any] | None = None,
    matter: Any = None,
    ready: bool = True,
    **overrides: Any,
) -> Iterator[Running]:
    """A server in a thread, with the fake generator in a worker process."""
    settings = settings_for(data_dir, **overrides)
    admin = local_admin(data_dir)
    _, key = admin.create("tests", requests_per_minute=100_000, gpu_seconds_per_day=1e6)
    server = make_server(settings, WorkerSpec(factory, options or {}), matter)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        live = Running(url, data_dir, admin, key, server)
        try:
            wait_for(lambda: server.started or None, "the server's start")
            if ready:
                wait_for(lambda: httpx.get(url + "/health").json()["status"] == "ok", "the worker")
            yield live
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"


class ServerProcess:
    """A server in a process of its own, to be killed and started again on the same data and port."""

    def __init__(
        self, data_dir: Path, options: dict[str, Any] | None = None, factory: str = FAKE, **overrides: Any
    ) -> None:
        self.data_dir = data_dir
        self.admin = local_admin(data_dir)
        self._options = {"factory": factory, "options": options or {}, "overrides": overrides}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, patience: float = 30.0) -> None:
        """Start and wait until the worker is ready."""
        command = [sys.executable, "-m", "tests.trellis2_modal.server", str(self.data_dir), str(self.port)]
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
        self._process = subprocess.Popen([*command, json.dumps(self._options)], env=env)
        wait_for(self.healthy, "the server process", patience)

    def healthy(self) -> bool:
        try:
            return httpx.get(self.url + "/health", timeout=2).json()["status"] == "ok"
        except (httpx.TransportError, ValueError):
            return False

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """As a polite operator does; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def worker_pid(self) -> int | None:
        path = self.data_dir / "worker.lock"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text else None

    def kill_worker(self) -> bool:
        """As `kill -9` does; False when there is none at the moment."""
        pid = self.worker_pid()
        if pid is None or not alive(pid):
            return False
        os.kill(pid, signal.SIGKILL)
        return True


def alive(pid: int) -> bool:
    """Whether a process runs: a killed child of a killed parent may stay a zombie until it is collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def others_can_open(folder: Path) -> list[Path]:
    """What of a folder another user of the machine could open."""
    return [path for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]


def _main() -> None:
    data_dir, port, text = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    private_folder(data_dir)  # as `serve` does
    chosen = json.loads(text)
    settings = settings_for(data_dir, **chosen["overrides"])
    server = make_server(settings, WorkerSpec(chosen["factory"], chosen["options"]))
    with listen("127.0.0.1", port) as listener:
        server.run(sockets=[listener])


__all__ = [
    "Running",
    "ServerProcess",
    "alive",
    "others_can_open",
    "picture",
    "running",
    "settings_for",
    "wait_for",
]

if __name__ == "__main__":
    _main()
