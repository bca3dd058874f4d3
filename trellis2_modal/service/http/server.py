"""The local server: the app over the local backend, in uvicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from ...jobs.engine import Engine
from ...jobs.local.assembly import folder_lock, local_engine
from ...jobs.locks import FileLock, private_folder
from ...jobs.worker_process import WorkerSpec
from ...running import RunningServer, announced
from ...sockets import address_of, listen, machine_names
from ..auth import KeyFile, keys_path, local_admin
from ..config import Settings
from ..logs import JsonFormatter, PlainFormatter, log_to_stderr
from .app import create_app
from .connections import BoundedServer, Connection, connection_limit, raise_file_limit
from .pictures.matte import MatteProcess, cheap_remover

FIRST_KEY_FILE = "first-key.txt"
GRACEFUL_CONNECTIONS = 5
"""Seconds that open connections (such as event streams) get when the server stops."""


def ensure_first_key(data_dir: Path) -> Path | None:
    """The file with this machine's own key, made together with the key when there are no keys yet.

    None when there are keys but the file is gone: secrets are stored nowhere else.
    """
    path = data_dir / FIRST_KEY_FILE
    admin = local_admin(data_dir)
    if not admin.keys():
        _, secret = admin.create("this machine", requests_per_minute=600, gpu_seconds_per_day=86_400.0)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
    return path if path.exists() else None


def configure_logging(as_json: bool = False, level: str = "INFO") -> None:
    """Everything to stderr, as lines for people or for machines."""
    log_to_stderr(JsonFormatter() if as_json else PlainFormatter(), level)


class Server(BoundedServer):
    """Tells the backend at once when a signal asks to stop, so that event streams end."""

    def __init__(self, config: uvicorn.Config, backend: Engine, folder: FileLock) -> None:
        super().__init__(config)
        self.backend = backend
        self.folder = folder

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.backend.begin_shutdown()
        super().handle_exit(sig, frame)


def make_server(
    settings: Settings, spec: WorkerSpec, matter: MatteProcess | None = None, host: str = "127.0.0.1"
) -> Server:
    """A server over a local backend; give it a listening socket with `run(sockets=[...])`."""
    lock = folder_lock(settings.data_dir)
    backend = local_engine(spec, settings, settings.data_dir, lock)
    names = machine_names(host) | {name.lower() for name in settings.hosts}
    app = create_app(backend, KeyFile(keys_path(settings.data_dir)), settings, matter, names=names)
    config = uvicorn.Config(
        app,
        host=host,
        http=Connection,
        limit_concurrency=connection_limit(settings.max_connections),
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACEFUL_CONNECTIONS,
    )
    return Server(config, backend, lock)


def run(
    settings: Settings,
    weights: str,
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 8188,
    listening: Callable[[str], None] = lambda address: None,
) -> int:
    """Serve until a signal; `listening` is told the address. Returns the exit status.

    Raises OSError when the port is taken, TimeoutError when another server keeps the data folder.
    """
    private_folder(settings.data_dir)
    raise_file_limit(settings.max_connections)
    spec = WorkerSpec(options={"weights": weights, "device": device})
    remover = cheap_remover(weights)
    server = make_server(settings, spec, MatteProcess(remover) if remover else None, host)
    with listen(host, port) as listener:
        server.folder.acquire()
        url = address_of(listener, host)
        key = settings.data_dir.resolve() / FIRST_KEY_FILE
        with announced(settings.data_dir, RunningServer(url, str(key) if key.exists() else "", os.getpid())):
            listening(url)
            server.run(sockets=[listener])
    return 0 if server.started else 1
