"""How many connections there may be, and for how long they may say nothing."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, ServerProcess, running, wait_for
from tests.trellis2_modal.service.test_api import problem, submit
from trellis2_modal.service.http import connections

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A server that waits half a second for a head and takes 24 connections."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.5)
    with running(tmp_path, ready=False, max_connections=24, max_streams=2) as live:
        yield live


def open_connections(server: Running) -> int:
    assert server.server is not None
    return len(server.server.server_state.connections)


def test_every_head_of_a_connection_has_its_time(hasty: Running) -> None:
    with ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(address(hasty.url), timeout=10)) for _ in range(12)
        ]
        for connection in held:
            connection.sendall(HEALTH)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(HEALTH[:20])  # half a second head: keeps uvicorn's own timer from closing
        wait_for(lambda: open_connections(hasty) == 0, "the end of all connections", 10)


def test_a_body_that_nobody_asked_for_has_its_time_too(hasty: Running) -> None:
    with socket.create_connection(address(hasty.url), timeout=10) as connection:
        connection.sendall(HEALTH[:-2] + b"Content-Length: 99\r\n\r\n{")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"x")
        wait_for(lambda: open_connections(hasty) == 0, "the end of the connection", 10)


def test_a_reply_that_takes_longer_than_a_head_is_not_cut_off(hasty: Running, body: dict[str, Any]) -> None:
    wait_for(lambda: httpx.get(hasty.url + "/health").json()["status"] == "ok", "the worker")
    with hasty.client() as client:
        assert client.post("/generate", json=body | {"seed": 8}).status_code == 200


def test_there_is_a_most_of_connections(hasty: Running) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(socket.create_connection(address(hasty.url), timeout=10))
        assert connection.recv(65536).startswith(b"HTTP/1.1 503")
        assert open_connections(hasty) <= 24
    wait_for(lambda: httpx.get(hasty.url + "/health").status_code == 200, "the next caller's turn")


def test_a_key_has_its_share_of_streams(hasty: Running, body: dict[str, Any]) -> None:
    wait_for(lambda: httpx.get(hasty.url + "/health").json()["status"] == "ok", "the worker")
    with hasty.client() as client, ExitStack() as stack:
        submit(client, body | {"seed": 666_004})  # a model that hangs
        job = submit(client, body)["id"]
        lines = [
            stack.enter_context(client.stream("GET", f"/jobs/{job}/events")).iter_lines() for _ in range(2)
        ]
        assert all(next(stream).startswith("retry") for stream in lines)
        problem(client.get(f"/jobs/{job}/events"), 429, "rate-limited")
        with hasty.client(hasty.new_key()) as other:
            assert other.get("/usage").status_code == 200
    with hasty.client() as client:
        wait_for(lambda: client.get(f"/jobs/{job}").status_code == 200, "the end of the streams")
        with client.stream("GET", f"/jobs/{job}/events") as stream:
            assert stream.status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="sets another process's limit")
def test_when_files_run_out_accepting_pauses_and_says_so_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import resource

    server = ServerProcess(tmp_path)
    server.start()
    try:
        assert server._process is not None
        pid = server._process.pid
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)  # type: ignore[attr-defined]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, before[1]))  # type: ignore[attr-defined]
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(socket.create_connection(address(server.url), timeout=10))
            message = "no more connections are accepted"
            log = ""

            def said() -> bool:
                nonlocal log
                log += capfd.readouterr().err
                return message in log

            wait_for(said, "the line in the log")
        wait_for(server.healthy, "the server's recovery")
        log += capfd.readouterr().err
        assert log.count(message) == 1
        assert "Traceback" not in log
    finally:
        server.stop()
