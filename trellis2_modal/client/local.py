"""The server on this machine, started by the client when no other service is set, and ended with it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from ..jobs.locks import holder_of
from ..protocol.errors import ServiceError
from ..running import LOCK, RunningServer, running_server
from .api import Client
from .errors import LocalServerError
from .options import Retry, Timeouts

START_TIMEOUT = 90.0
ANSWER_TIMEOUT = 5.0
ONCE = Retry(attempts=1, startup=0.0)
LOG_LINES = 40
INSTALL_HINT = "to run the model on this machine: pip install 'trellis2-modal[local]'"


def can_run_here() -> bool:
    """Whether the packages of a local server are installed; imports none of them."""
    return all(
        importlib.util.find_spec(name) is not None for name in ("torch", "uvicorn", "fastapi", "o_voxel")
    )


def find_server(*folders: Path) -> RunningServer | None:
    """The first of the servers with these data folders that runs and can take jobs.

    Only the process that announced itself counts: after a kill its port may be anybody's, and whoever listens
    there would get the key and the pictures.
    """
    for folder in folders:
        server = running_server(folder)
        if server is None or holder_of(folder / LOCK) != server.pid:
            continue
        patience = Timeouts(connect=ANSWER_TIMEOUT, read=ANSWER_TIMEOUT)
        with contextlib.suppress(ServiceError), Client(server.url, timeouts=patience, retry=ONCE) as client:
            if client.health().status not in ("degraded", "stopping"):
                return server
    return None


class LocalServer:
    """`trellis2-modal serve` on a free port of this machine, with a data folder and a key of its own.

    Without a data folder it gets a temporary one, so that one-shot commands never wait for one another.
    """

    def __init__(
        self, data_dir: Path | None = None, weights: str | None = None, device: str | None = None
    ) -> None:
        self._given = data_dir
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._arguments = [
            *(("--weights", weights) if weights else ()),
            *(("--device", device) if device else ()),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._lock = threading.Lock()
        self.url = ""
        self.key = ""

    def __enter__(self) -> LocalServer:
        self.ensure()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def lives(self, url: str) -> bool:
        """Whether the server that had this address still runs; waits while one is starting."""
        with self._lock:
            return self.running and self.url == url

    def ensure(self) -> str:
        """Start it unless it runs; returns its address as soon as it answers. Raises `LocalServerError`."""
        with self._lock:
            if not self.running:
                self._start()
            return self.url

    def _start(self) -> None:
        if not can_run_here():
            raise LocalServerError(
                "no service is set, and the model is not installed here. "
                f"Set a URL and a key, or, {INSTALL_HINT}"
            )
        folder = self._folder()
        command = [sys.executable, "-m", "trellis2_modal.cli.parent_guard", "serve", "--port", "0"]
        self._log.clear()
        before = running_server(folder)  # of a killed server, or of one that has the folder
        self._process = subprocess.Popen(
            [*command, "--data-dir", str(folder), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p), PYTHONUNBUFFERED="1"),
            start_new_session=True,  # Ctrl-C is for the client, which then stops the server itself
        )
        for stream in (self._process.stdout, self._process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        try:
            self._wait_until_it_listens(folder, before)
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _folder(self) -> Path:
        if self._given is not None:
            self._given.mkdir(parents=True, exist_ok=True)
            return self._given
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="trellis2-", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._log.append(line.rstrip())

    def _wait_until_it_listens(self, folder: Path, before: RunningServer | None) -> None:
        """The address and the key, from the file that the server writes when it listens."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.running:
            server = running_server(folder)
            if server is not None and server != before:
                self.url = server.url
                self.key = server.read_key()
                return
            time.sleep(0.02)
        raise self._failure("did not start")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while time.monotonic() < deadline:
                if not self.running:
                    break
                with contextlib.suppress(httpx.TransportError):
                    if http.get(self.url + "/health").is_success:
                        return
                time.sleep(0.1)
        raise self._failure("does not answer")

    def _failure(self, what: str) -> LocalServerError:
        log = "\n".join(self._log)
        reason = next(
            (line for line in reversed(self._log) if line and not line.startswith(" ")), "no output"
        )
        return LocalServerError(f"the server on this machine {what}: {reason[:300]}", log)

    def stop(self) -> None:
        """End it: closing its stdin asks politely; then it is killed."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
