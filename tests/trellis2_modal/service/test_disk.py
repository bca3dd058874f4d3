"""A disk that fills up while the service runs: refused with a reason, nothing lost, and all goes on after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, running, wait_for
from tests.trellis2_modal.service.test_api import finished, problem, submit
from trellis2_modal.jobs import engine
from trellis2_modal.jobs.job import NewJob, accepted
from trellis2_modal.jobs.local.table import SqliteTable
from trellis2_modal.jobs.locks import FileLock
from trellis2_modal.protocol.errors import StorageFullError


@contextmanager
def full(store: SqliteTable) -> Iterator[None]:
    """SQLite may not take another page: what it says then is what it says on a full disk."""
    with store._lock:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        with store._lock:
            store._db.execute("PRAGMA max_page_count = 1073741823")


def store_of(server: Running) -> SqliteTable:
    assert server.server is not None
    table = server.server.backend.table
    assert isinstance(table, SqliteTable)
    return table


def test_a_full_store_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    asyncio.run(_fill_and_go_on(SqliteTable(tmp_path / "jobs.sqlite", FileLock(tmp_path / "lock"))))


async def _fill_and_go_on(table: SqliteTable) -> None:
    await table.open()
    new = NewJob("generate", {"pad": "x" * 5000}, None, owner="anna", request_digest="f")

    async def insert(name: str) -> None:
        await table.insert(*accepted(new, name, 1.0, 0))

    async def insert_many() -> None:
        for number in range(20):
            await insert(f"more {number}")

    await insert("first")
    with full(table), pytest.raises(StorageFullError):
        await insert_many()
    first = await table.get("first")
    assert first is not None
    assert first.status == "queued"
    await insert("last")
    await table.close()


def test_a_store_that_fills_under_a_running_job(
    tmp_path: Path, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRY_INTERVAL", 0.05)
    options = {"step_seconds": 0.05, "pad": 5000}
    with running(tmp_path, options=options) as server, server.client() as client:
        job = submit(client, body)["id"]
        waiting = submit(client, body)["id"]
        wait_for(lambda: client.get(f"/jobs/{job}").json()["progress"], "the first step")
        with full(store_of(server)):
            reply = _refused(client, body)
            problem(reply, 503, "storage-full")
            assert client.get("/health").json()["status"] == "ok"
            result = tmp_path / "jobs" / job / "result" / "result.json"
            wait_for(result.exists, "the result's publishing")
        assert finished(client, job)["status"] == "finished"
        assert finished(client, waiting)["status"] == "finished"
        assert client.get(f"/jobs/{job}/state").status_code == 200


def _refused(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    """The reply of the first submission that finds no room: the last page may have some left."""

    def post() -> httpx.Response | None:
        reply = client.post("/jobs", json={"kind": "generate", **body})
        return reply if reply.is_error else None

    return wait_for(post, "a refusal")
