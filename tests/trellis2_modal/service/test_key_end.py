"""A key that ends while something of it is under way."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, running, wait_for
from tests.trellis2_modal.service.test_api import problem, submit
from trellis2_modal.service.auth import ApiKey


@contextmanager
def gated(folder: Path) -> Iterator[tuple[Running, Path]]:
    """A server whose jobs wait in their first step until the file exists."""
    gate = folder / "gate"
    with running(folder, options={"gate": str(gate)}) as server:
        yield server, gate


@pytest.mark.parametrize("end", ["expire", "revoke"])
def test_a_key_that_ends_in_mid_job(
    tmp_path: Path, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Its streams end and nothing is answered; the job goes on and is charged to it."""
    monkeypatch.setattr("trellis2_modal.service.streaming.KEY_CHECK", 0.05)
    with gated(tmp_path) as (server, gate):
        key, secret = server.admin.create("anna", requests_per_minute=1000)
        with server.client(secret) as client:
            job = submit(client, body)["id"]
            with client.stream("GET", f"/jobs/{job}/events") as stream:
                lines = stream.iter_lines()
                while "event: progress" not in next(lines):
                    pass
                end_key(server, key, end)
                assert "event: result" not in list(lines)
            for path in ("", "/events", "/state"):
                problem(client.get(f"/jobs/{job}{path}"), 401, "unauthenticated")
            problem(client.delete(f"/jobs/{job}"), 401, "unauthenticated")
            problem(client.post("/jobs", json={"kind": "generate", **body}), 401, "unauthenticated")
            gate.touch()
            stored = wait_for(lambda: ended(tmp_path, job), "the job's end")
            assert (stored["status"], stored["owner"]) == ("finished", key.id)
            assert stored["seconds"] > 0
            problem(client.get(f"/jobs/{job}/state"), 401, "unauthenticated")


def end_key(server: Running, key: ApiKey, how: str) -> None:
    if how == "revoke":
        server.admin.revoke(key.id)
    else:
        server.admin.rotate(key.id, overlap=0.0)


def ended(folder: Path, job: str) -> dict[str, Any] | None:
    db = sqlite3.connect(folder / "jobs.sqlite")
    try:
        text = db.execute("SELECT document FROM job WHERE id = ?", (job,)).fetchone()[0]
    finally:
        db.close()
    found: dict[str, Any] = json.loads(text)
    return found if found["finished"] else None


def test_a_key_that_ends_during_an_upload_makes_no_job(server: Running, body: dict[str, Any]) -> None:
    key, secret = server.admin.create("late", requests_per_minute=1000)
    text = json.dumps({"kind": "generate"} | body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST /jobs HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {secret}\r\n"
        head += "Content-Type: application/json\r\n"
        rest = f"Content-Length: {len(text)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        connection.sendall((head + rest).encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")  # the head was let through
        connection.sendall(text[:100])
        server.admin.revoke(key.id)
        connection.sendall(text[100:])
        reply = b""
        while chunk := connection.recv(65536):
            reply += chunk
    assert reply.startswith(b"HTTP/1.1 401"), reply
    assert server.server is not None
    assert key.id not in {row for (row,) in owners(server.data_dir)}


def owners(folder: Path) -> list[tuple[str]]:
    db = sqlite3.connect(folder / "jobs.sqlite")
    try:
        return db.execute("SELECT owner FROM job").fetchall()
    finally:
        db.close()


def test_a_call_that_waits_is_refused_when_its_key_has_ended(tmp_path: Path, body: dict[str, Any]) -> None:
    with gated(tmp_path) as (server, gate):
        key, secret = server.admin.create("anna", requests_per_minute=1000)

        def wait_then_end() -> None:
            wait_for(lambda: (key.id,) in owners(tmp_path), "the job")
            server.admin.revoke(key.id)
            gate.touch()

        ending = threading.Thread(target=wait_then_end)
        ending.start()
        reply = httpx.post(server.url + "/generate", json=body, headers={"X-API-Key": secret}, timeout=30)
        ending.join()
        problem(reply, 401, "unauthenticated")
