"""Power cuts and damaged files: what was announced is on the disk, and one bad part stops nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2_modal import fake
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs import worker
from trellis2_modal.jobs.execution import JobFile, JobOutput
from trellis2_modal.jobs.job import Event, Job, NewJob, accepted, finished, new_job_id
from trellis2_modal.jobs.local.files import JobFiles
from trellis2_modal.jobs.local.table import SqliteTable
from trellis2_modal.jobs.locks import FileLock
from trellis2_modal.jobs.ports import Query
from trellis2_modal.jobs.worker import RESULT_FILE, publish, serve
from trellis2_modal.protocol.errors import NotFoundError, UnavailableError
from trellis2_modal.protocol.events import ProgressReport
from trellis2_modal.protocol.replies import JobEvent
from trellis2_modal.protocol.requests import GenerateSettings

from .conftest import NEW, LocalPort, ModalPort, Rig, until

RESULT = {"artifacts": {"state": {"url": "/jobs/x/state", "media_type": "x/y", "bytes": 3}}, "stats": {}}


@pytest.fixture
def table(tmp_path: Path) -> SqliteTable:
    return SqliteTable(tmp_path / "jobs.sqlite", FileLock(tmp_path / "lock"))


def edit(folder: Path, query: str, *values: Any) -> None:
    """What a fault of the disk does to a store that nobody has open."""
    db = sqlite3.connect(folder / "jobs.sqlite")
    db.execute(query, values)
    db.commit()
    db.close()


async def fill(table: SqliteTable, count: int) -> list[str]:
    """Finished jobs with three events each."""
    await table.open()
    ids = []
    for number in range(count):
        job, event = accepted(
            NewJob("generate", {"seed": number}, None, owner="anna", request_digest="d"), new_job_id(), 1.0, 0
        )
        await table.insert(job, event)
        await table.report(job.id, [Event.of(2.0, ProgressReport(stage="shape", step=1, steps=2))])
        done = finished(job, 3.0, RESULT, 1.0, 100.0)
        assert done is not None
        await table.swap(job, *done)
        ids.append(job.id)
    await table.close()
    return ids


# --- announcing -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what was synced")
def test_a_result_is_on_the_disk_before_it_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        sync(handle)
        told.append("sync " + str(Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path)))

    def renamed(old: Path, new: Path) -> None:
        rename(old, new)
        told.append("rename")

    class Told:
        def send(self, kind: str, **members: Any) -> None:
            told.append(kind)

        def wants_cancel(self, job: str) -> bool:
            return False

        def forget(self, job: str) -> None: ...

    asyncio.run(JobFiles(tmp_path, 1, 9.0).keep_input("job", NEW.payload))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    line: Any = Told()
    message = {
        "job": "job",
        "kind": "generate",
        "settings": {"preview": "none"},
        "payload": tmp_path / "job/input",
    }
    assert serve(fake.create(0.0), message | {"folder": tmp_path / "job"}, line, line)
    assert [word for word in told if word != "progress"] == [
        "sync job/work/state",
        "sync job/work/" + RESULT_FILE,
        "sync job/work",
        "rename",
        "sync job",
        "done",
    ]


def test_a_job_is_on_the_disk_before_it_is_accepted(tmp_path: Path, table: SqliteTable) -> None:
    async def scenario() -> list[tuple[int]]:
        await fill(table, 1)
        await table.open()
        modes = []
        with table._change() as db:
            modes.append(db.execute("PRAGMA synchronous").fetchone()[0])
        with table._change(durable=False) as db:
            modes.append(db.execute("PRAGMA synchronous").fetchone()[0])
        await table.close()
        return modes

    assert asyncio.run(scenario()) == [2, 1]  # FULL, NORMAL


# --- rows -----------------------------------------------------------------------------------------------


def document(**changes: Any) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.encode().replace(b"generate", b"\xffenerate"),
        lambda text: "[" * 100_000,
        document(status="asleep"),
        document(owner="bert"),
        document(version=7),
        document(created=1e300),
        document(created=float("nan")),
        document(finished=None),
        document(result=None),
        document(result={"artifacts": {"state": {"bytes": "many"}}}),
        document(result={"artifacts": [], "stats": 3}),
        document(seconds=-1),
        document(settings=3),
    ],
)
def test_a_damaged_row_is_reported_and_left_out(
    tmp_path: Path, table: SqliteTable, caplog: pytest.LogCaptureFixture, damage: Callable[[str], Any]
) -> None:
    async def scenario() -> None:
        before, bad, after = await fill(table, 3)
        db = sqlite3.connect(tmp_path / "jobs.sqlite")
        text = db.execute("SELECT document FROM job WHERE id = ?", (bad,)).fetchone()[0]
        db.close()
        edit(tmp_path, "UPDATE job SET document = ? WHERE id = ?", damage(text), bad)
        await table.open()
        for _ in range(2):
            assert [job.id for job in await table.query(Query(owner="anna"))] == [before, after]
            assert [job.id for job in await table.page("anna", 9, None)] == [after, before]
            assert await table.get(bad) is None
        assert await table.counts() == {"finished": 2, "damaged": 1}
        assert len([record for record in caplog.records if bad in record.getMessage()]) == 1
        again, event = accepted(NewJob("generate", {}, None, owner="anna", request_digest="d"), bad, 5.0, 0)
        assert await table.insert(again, event) == again
        assert [e.type for e in await table.events(bad, 0, 9)] == ["queued"]
        await table.close()

    caplog.set_level(logging.ERROR)
    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", "{"),
        ("data", '{"stage": 1, "stats": 3}'),
        ("data", "3"),
        ("type", "asleep"),
        ("time", "soon"),
        ("time", 1e300),
    ],
)
def test_a_damaged_event_is_left_out_and_a_job_keeps_its_end(
    tmp_path: Path, table: SqliteTable, column: str, value: Any
) -> None:
    async def events(job: str) -> list[JobEvent]:
        await table.open()
        try:
            return await table.events(job, 0, 99)
        finally:
            await table.close()

    async def scenario() -> None:
        (job,) = await fill(table, 1)
        whole = await events(job)
        edit(tmp_path, f"UPDATE event SET {column} = ? WHERE job = ? AND id = 2", value, job)
        assert await events(job) == [whole[0], whole[2]]
        edit(tmp_path, f"UPDATE event SET {column} = ? WHERE job = ? AND id = 3", value, job)
        first, last = await events(job)
        assert (first, last.type, last.data) == (whole[0], "result", whole[2].data)

    asyncio.run(scenario())


# --- pages ----------------------------------------------------------------------------------------------

JOBS = 24


def test_any_page_of_the_database_may_be_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tmp_path / "whole"

    def table_in(folder: Path) -> SqliteTable:
        return SqliteTable(folder / "jobs.sqlite", FileLock(folder / "lock"))

    ids = asyncio.run(fill(table_in(whole), JOBS))
    data = (whole / "jobs.sqlite").read_bytes()
    size = int.from_bytes(data[16:18], "big")
    pages = len(data) // size
    assert pages >= 10
    caplog.set_level(logging.ERROR)

    async def left(folder: Path) -> int:
        table = table_in(folder)
        await table.open()
        found = await table.query(Query(owner="anna"))
        assert {job.id for job in found} <= set(ids)
        for job in found:
            assert (await table.events(job.id, 0, 99))[-1].type == "result"
        again, event = accepted(
            NewJob("generate", {}, None, owner="anna", request_digest="d"), new_job_id(), 5.0, 0
        )
        assert await table.insert(again, event) == again
        await table.close()
        return len(found)

    kept = {}
    for page in range(pages):
        folder = tmp_path / str(page)
        folder.mkdir()
        torn = data[: page * size] + os.urandom(size) + data[(page + 1) * size :]
        (folder / "jobs.sqlite").write_bytes(torn)
        kept[page] = asyncio.run(left(folder))
        copies = [path for path in folder.iterdir() if ".damaged-" in path.name]
        assert [copy.read_bytes() for copy in copies] == [torn]
        shutil.rmtree(folder)
    assert "the job database was damaged" in caplog.text
    assert kept.pop(0) == JOBS  # the first page is known
    interior = [page for page, count in kept.items() if count < JOBS - 8]
    assert len(interior) <= 1, kept  # a leaf of the table holds a few jobs; one page points to all leaves


@pytest.mark.parametrize("kept", [0, 50, 3000, 0.4, 0.9])
def test_a_cut_off_or_foreign_file(tmp_path: Path, table: SqliteTable, kept: float) -> None:
    async def scenario() -> None:
        ids = await fill(table, JOBS)
        path = tmp_path / "jobs.sqlite"
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data) if kept < 1 else kept)] or b"not a database" * 1000)
        await table.open()
        found = [job.id for job in await table.query(Query(owner="anna"))]
        assert set(found) <= set(ids)
        assert found or kept != 0.9
        again, event = accepted(
            NewJob("generate", {}, None, owner="anna", request_digest="d"), new_job_id(), 5.0, 0
        )
        assert await table.insert(again, event) == again
        await table.close()

    asyncio.run(scenario())


def test_damage_that_shows_while_the_service_runs(tmp_path: Path, table: SqliteTable) -> None:
    async def scenario() -> None:
        ids = await fill(table, JOBS)
        path = tmp_path / "jobs.sqlite"
        await table.open()
        data = path.read_bytes()
        size = int.from_bytes(data[16:18], "big")
        table._db.execute("PRAGMA shrink_memory")  # so that it is read again
        with path.open("r+b") as file:
            for at in range(0, len(data), size):
                if b'{"id": "' + ids[JOBS // 2].encode() in data[at : at + size]:
                    file.seek(at)
                    file.write(os.urandom(size))
        with pytest.raises(UnavailableError):
            await table.query(Query(owner="anna"))
        assert JOBS - 20 < len(await table.query(Query(owner="anna"))) < JOBS
        await table.close()

    asyncio.run(scenario())


# --- results and folders --------------------------------------------------------------------------------


def damage_document(folder: Path) -> None:
    (folder / RESULT_FILE).write_text('{"seed": 1')


def damage_file(folder: Path) -> None:
    with (folder / "state").open("r+b") as file:
        file.truncate(10)


def lose_file(folder: Path) -> None:
    (folder / "state").unlink()


def odd_document(folder: Path) -> None:
    found = json.loads((folder / RESULT_FILE).read_text())
    (folder / RESULT_FILE).write_text(json.dumps(found | {"seconds": "long"}))


@pytest.mark.parametrize("damage", [damage_document, damage_file, lose_file, odd_document])
def test_a_damaged_result_is_reported_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    output = JobOutput({"state": JobFile(b"state" * 9, "x/y")}, 1, 16, {"voxels": 3})
    job, _ = accepted(NEW, "job", 1.0, 0)
    files = JobFiles(tmp_path, 1, 9.0)
    (tmp_path / "job").mkdir()
    assert asyncio.run(files.published(job)) is None
    assert caplog.records == []
    publish(output, tmp_path / "job", 1.5)
    found = asyncio.run(files.published(job))
    assert found is not None
    assert (found.seconds, found.result["stats"]) == (1.5, {"voxels": 3})
    damage(tmp_path / "job" / "result")
    assert asyncio.run(files.published(job)) is None
    assert "the result of job job is damaged" in caplog.text
    publish(output, tmp_path / "job", 2.5)  # it is out of the way
    assert asyncio.run(files.published(job)) is not None


def test_no_room_for_the_light_mesh_does_not_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, said = worker.write_new, []

    def full(path: Path, data: bytes, *_: Any) -> Any:
        if path.name == "light":
            path.write_bytes(data[:1])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data)

    class Channel:
        def send(self, kind: str, **members: Any) -> None:
            said.append(kind)

    class Inbox:
        def wants_cancel(self, job: str) -> bool:
            return False

        def forget(self, job: str) -> None: ...

    monkeypatch.setattr(worker, "write_new", full)
    monkeypatch.setattr(worker, "write_atomically", full)
    (tmp_path / "job").mkdir()
    (tmp_path / "picture").write_bytes(picture())
    (tmp_path / "filmed").touch()
    generator = fake.FakeGenerator(0.0, None, ("512",), burn=False, pad=0, light=str(tmp_path / "filmed"))
    settings = GenerateSettings(preview="frames").model_dump()
    message: Any = {"job": "job", "folder": tmp_path / "job", "payload": tmp_path / "picture"}
    channel: Any = Channel()
    inbox: Any = Inbox()
    assert serve(generator, message | {"kind": "generate", "settings": settings}, channel, inbox)
    assert said[-1] == "done"
    job, _ = accepted(NEW, "job", 1.0, 0)
    found = asyncio.run(JobFiles(tmp_path, 1, 9.0).published(job))
    assert found is not None
    assert sorted(found.result["artifacts"]) == ["preview", "state", "video"]
    assert caplog.text.count("No space left") == 2, "handed over early, and with the result"


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    """The server was killed before it took over a result, and the disk lost a part of that."""
    port = LocalPort(tmp_path)

    async def scenario() -> None:
        async with port.rig() as rig:
            rig.release()
            job = await rig.submit()
            done = await rig.ended(job)
            stored = await rig.engine.table.get(job)
            assert stored is not None
            result = tmp_path / "jobs" / job / "result"
        shutil.copytree(result, tmp_path / "kept")
        running = Job.load(
            stored.dump() | {"status": "running", "finished": None, "result": None, "expires": None}
        )
        edit(
            tmp_path,
            "UPDATE job SET status = 'running', finished = NULL, expires = NULL, document = ? WHERE id = ?",
            json.dumps(running.dump()),
            job,
        )
        edit(tmp_path, "DELETE FROM event WHERE job = ? AND type = 'result'", job)
        (tmp_path / "jobs" / job / "input").write_bytes(NEW.payload or b"")
        damage_file(result)
        async with port.rig() as rig:
            again = await rig.ended(job)
            assert (again.status, again.attempt) == ("finished", done.attempt + 1)
            state = await rig.engine.result("anna", job, "state")
            assert state.read() == (tmp_path / "kept" / "state").read_bytes()

    asyncio.run(scenario())


def test_a_start_removes_what_belongs_to_no_job(tmp_path: Path) -> None:
    port = LocalPort(tmp_path)

    async def scenario() -> None:
        async with port.rig() as rig:
            rig.release()
            done = await rig.submit()
            await rig.ended(done)
        stray, orphan, damaged = (tmp_path / "jobs" / new_job_id() for _ in range(3))
        stray.mkdir()
        (stray / "input").write_bytes(b"the picture of a job that was never accepted")
        (orphan / "result").mkdir(parents=True)
        (tmp_path / "jobs" / done / "input").write_bytes(b"killed between the end of the job and this")
        (tmp_path / "jobs" / done / "work").mkdir()
        edit(
            tmp_path,
            "INSERT INTO job SELECT 99, ?, owner, 'finished', 1.0, 1.0, 1, '{' FROM job",
            damaged.name,
        )
        (damaged / "result").mkdir(parents=True)
        async with port.rig() as rig:
            assert {path.name for path in (tmp_path / "jobs").iterdir()} == {done, orphan.name, damaged.name}
            assert [path.name for path in (tmp_path / "jobs" / done).iterdir()] == ["result"]
            await keeps_working(rig, damaged.name)

    asyncio.run(scenario())


async def keeps_working(rig: Rig, damaged: str) -> None:
    with pytest.raises(NotFoundError):
        await rig.status(damaged)
    job = await rig.submit()
    assert (await rig.ended(job)).status == "finished"
    assert len(await rig.engine.list_jobs("anna", 9)) == 2

    async def counted() -> bool:
        return rig.engine.stats().totals == {"finished": 2, "damaged": 1}

    await until(counted, "the count")


def test_a_job_that_cannot_be_looked_at_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = LocalPort(tmp_path)
    monkeypatch.setattr("trellis2_modal.jobs.engine.RETRY_INTERVAL", 0.01)

    async def scenario() -> None:
        async with port.rig() as rig:
            bad = await rig.submit()
            await rig.running(bad)
            real = rig.engine.runner.poll

            async def poll(job: Job) -> Any:
                if job.id == bad:
                    await real(job)
                    raise RuntimeError("nobody foresaw this")
                return await real(job)

            monkeypatch.setattr(rig.engine.runner, "poll", poll)
            good = await rig.submit()
            rig.release()
            assert (await rig.ended(good)).status == "finished"

    asyncio.run(scenario())


# --- the tables on Modal --------------------------------------------------------------------------------


def test_damaged_entries_of_the_tables_on_modal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = ModalPort(tmp_path)
    new = dataclasses.replace(NEW, idempotency_key="k")
    good, _ = accepted(NEW, new_job_id(), 1.0, 0)
    damages = {**good.dump(), "created": "soon"}, {"id": good.id}, [], "text", {**good.dump(), "result": 3}
    for number, damaged in enumerate(damages):
        port.modal.jobs.put(f"job_{number:032x}", damaged)
    port.modal.jobs.put(new.job_id(), {})

    async def scenario() -> None:
        async with port.rig() as rig:
            assert await rig.engine.list_jobs("anna", 9) == []
            with pytest.raises(NotFoundError):
                await rig.status(f"job_{0:032x}")
            job = await rig.submit(idempotency_key="k")  # in the place of a damaged one
            await rig.running(job)
            (call,) = port.modal.calls
            for entry in ({}, {"attempt": "x"}, 7, {"attempt": 1, "started": float("nan"), "events": []}):
                port.modal.progress_table.put(call, entry)
                assert (await rig.status(job)).status == "running"
            rig.release()
            done = await rig.ended(job)
            assert (done.status, done.attempt) == ("finished", 1)

    try:
        asyncio.run(scenario())
    finally:
        port.close()
    assert "a stored job cannot be read" in caplog.text
    assert "the progress of a call cannot be read" in caplog.text
