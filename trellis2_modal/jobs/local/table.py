"""Jobs and their events in SQLite: what must survive a `kill -9`, a power cut, and damage to a part of it.

What cannot be read is reported in the log and left out; all else goes on. A row that holds no whole job is
marked `damaged`; a damaged file is copied beside itself and written anew from what can be read of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...durable import sync_folder
from ...protocol.errors import StorageFullError, UnavailableError, in_one_line
from ...protocol.events import payload_of
from ...protocol.replies import FINAL_EVENTS, JobEvent
from ..job import Event, Job
from ..locks import FileLock
from ..ports import WITHOUT_FILES, Query

logger = logging.getLogger(__name__)

SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS job (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  status TEXT NOT NULL,
  finished REAL,
  expires REAL,
  version INTEGER NOT NULL,
  document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS job_status ON job (status, seq);
CREATE INDEX IF NOT EXISTS job_owner ON job (owner, seq);
CREATE INDEX IF NOT EXISTS job_ended ON job (owner, finished);
CREATE TABLE IF NOT EXISTS event (
  job TEXT NOT NULL,
  id INTEGER NOT NULL,
  type TEXT NOT NULL,
  time REAL NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (job, id)
) WITHOUT ROWID;
COMMIT;
"""


DAMAGED = "damaged"
"""The status of a row that holds no whole job."""

CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)
"""What reading a damaged document raises."""

JOB_COLUMNS = "id, owner, status, finished, expires, version, document"


class SqliteTable:
    """See `ports.JobTable`. One connection behind a lock; calls are short and made in a thread.

    `folder_lock`: one server a data folder.
    """

    def __init__(self, path: Path, folder_lock: FileLock) -> None:
        self._path = path
        self._folder_lock = folder_lock
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Waits for a server that is stopping; raises TimeoutError when it does not."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._folder_lock.acquire()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._connection is None:
            try:
                self._connection = _connect(self._path)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._restore(error)

    def _restore(self, error: Exception) -> None:
        self._disconnect()
        salvage(self._path, error)
        self._connection = _connect(self._path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def close(self) -> None:
        with self._lock:
            self._disconnect()
        self._folder_lock.release()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the job table is not open")
        return self._connection

    @contextmanager
    def _change(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, on the disk at its end if it is `durable`. Raises `StorageFullError`."""
        with self._lock, self._damage_restored():
            try:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._rollback()
                if "full" in str(error) or "disk I/O" in str(error):
                    raise StorageFullError(
                        "the job store cannot be written; try later", retry_after=60
                    ) from error
                raise
            except BaseException:
                self._rollback()
                raise

    @contextmanager
    def _damage_restored(self) -> Iterator[None]:
        """What turns out to be damaged while the service runs is written anew at once."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._restore(error)
            raise UnavailableError("the job store had to be restored; try again", retry_after=5) from error

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    async def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        def read() -> list[sqlite3.Row]:
            with self._lock, self._damage_restored():
                return self._db.execute(query, values).fetchall()

        return await asyncio.to_thread(read)

    async def _jobs(self, query: str, *values: Any) -> list[Job]:
        """Jobs by a query for their columns; a damaged row is reported, marked and left out."""
        jobs, damaged = [], []
        for row in await self._all(f"SELECT seq, {JOB_COLUMNS} FROM job {query}", *values):
            try:
                jobs.append(_job(row))
            except UNREADABLE as error:
                logger.error("the stored job %s cannot be read: %s", row["id"], in_one_line(error))
                damaged.append((DAMAGED, row["seq"]))
        if damaged:

            def mark() -> None:
                with self._change() as db:
                    db.executemany("UPDATE job SET status = ? WHERE seq = ?", damaged)

            await asyncio.to_thread(mark)
        return jobs

    # --- the port ----------------------------------------------------------------------------------------

    async def insert(self, job: Job, event: Event) -> Job:
        def write() -> bool:
            with self._change() as db:
                db.execute("DELETE FROM job WHERE id = ? AND status = ?", (job.id, DAMAGED))
                done = db.execute(
                    f"INSERT OR IGNORE INTO job ({JOB_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*_columns(job), _document(job)),
                )
                if done.rowcount == 1:
                    db.execute("DELETE FROM event WHERE job = ?", (job.id,))
                    _add_events(db, job.id, [event])
                return done.rowcount == 1

        while not await asyncio.to_thread(write):
            known = await self.get(job.id)  # None if it is damaged: it is marked then
            if known is not None:
                return known
        return job

    async def get(self, job_id: str) -> Job | None:
        found = await self._jobs("WHERE id = ? AND status != ?", job_id, DAMAGED)
        return found[0] if found else None

    async def swap(self, old: Job, new: Job, event: Event | None = None) -> bool:
        def write() -> bool:
            with self._change() as db:
                done = db.execute(
                    "UPDATE job SET status = ?, finished = ?, expires = ?, version = ?, document = ?"
                    " WHERE id = ? AND version = ?",
                    (*_columns(new)[2:], _document(new), old.id, old.version),
                )
                if done.rowcount == 1 and event is not None:
                    _add_events(db, old.id, [event])
                return done.rowcount == 1

        return await asyncio.to_thread(write)

    async def query(self, query: Query) -> list[Job]:
        conditions: list[tuple[str, list[Any]]] = []
        if query.owner is not None:
            conditions.append(("owner = ?", [query.owner]))
        if query.states:
            marks = ", ".join("?" * len(query.states))
            conditions.append((f"status IN ({marks})", list(query.states)))
        if query.ended_after is not None:
            conditions.append(("finished > ?", [query.ended_after]))
        if query.ended_before is not None:
            conditions.append(("finished < ?", [query.ended_before]))
        if query.expired_at is not None:
            conditions.append(("status = 'finished' AND expires <= ?", [query.expired_at]))
        conditions.append(("status != ?", [DAMAGED]))
        where = " AND ".join(text for text, _ in conditions)
        return await self._jobs(f"WHERE {where} ORDER BY seq", *(v for _, part in conditions for v in part))

    async def page(self, owner: str, limit: int, before: Job | None) -> list[Job]:
        older = "" if before is None else " AND seq < (SELECT seq FROM job WHERE id = ?)"
        values = [owner, DAMAGED, *([] if before is None else [before.id]), limit]
        return await self._jobs(f"WHERE owner = ? AND status != ?{older} ORDER BY seq DESC LIMIT ?", *values)

    async def counts(self) -> dict[str, int]:
        rows = await self._all("SELECT status, count(*) FROM job GROUP BY status")
        return {status: int(count) for status, count in rows}

    async def ids(self) -> set[str]:
        marks = ", ".join("?" * len(WITHOUT_FILES))
        rows = await self._all(f"SELECT id FROM job WHERE status NOT IN ({marks})", *WITHOUT_FILES)
        return {row["id"] for row in rows}

    async def forget(self, job_ids: Iterable[str]) -> None:
        ids = [(job_id,) for job_id in job_ids]

        def write() -> None:
            with self._change() as db:
                db.executemany("DELETE FROM event WHERE job = ?", ids)
                db.executemany("DELETE FROM job WHERE id = ?", ids)

        await asyncio.to_thread(write)

    async def report(self, job_id: str, events: Sequence[Event]) -> None:
        def write() -> None:
            with self._change(durable=False) as db:
                _add_events(db, job_id, events)

        try:
            await asyncio.to_thread(write)
        except StorageFullError:
            logger.error("job %s goes on, its progress cannot be stored", job_id)

    async def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        rows = await self._all(
            "SELECT id, type, time, data FROM event WHERE job = ? AND id > ? ORDER BY id LIMIT ?",
            *(job_id, after, limit),
        )
        try:
            return [_event(row) for row in rows]
        except UNREADABLE as error:
            reason = in_one_line(error)
            logger.error("an event of job %s cannot be read and is left out: %s", job_id, reason)
        job = await self.get(job_id)

        def mend() -> None:
            with self._change() as db:
                _mend_events(db, job_id, job)

        await asyncio.to_thread(mend)
        return await self.events(job_id, after, limit)


def _connect(path: Path) -> sqlite3.Connection:
    """The database, checked. Raises `sqlite3.DatabaseError`."""
    db = _plain(path)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(SCHEMA)
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise DamagedError(found)
    except BaseException:
        db.close()
        raise
    return db


def _plain(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
    db.row_factory = sqlite3.Row
    db.text_factory = _text
    return db


def _text(raw: bytes) -> str | bytes:
    """Bytes that are no UTF-8 stay bytes: a damaged value must not end the query."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class DamagedError(sqlite3.DatabaseError):
    """What `quick_check` found."""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, DamagedError) or (code is not None and code & 0xFF in CORRUPT)


def salvage(path: Path, error: Exception) -> None:
    """Put a new database with all that can be read in the place of a damaged one, of which a copy stays."""
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns():x}")
    for ending in ("", "-wal"):
        if Path(f"{path}{ending}").exists():
            shutil.copy2(f"{path}{ending}", f"{kept}{ending}")
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    new, old = _plain(fresh), _plain(path)
    try:
        new.executescript(SCHEMA)
        saved, lost = _copy_readable(old, new)
    finally:
        new.close()
        old.close()
    for ending in ("-wal", "-shm"):  # of the old one; they would be taken for the new one's
        Path(f"{path}{ending}").unlink(missing_ok=True)
    os.replace(fresh, path)
    sync_folder(path.parent)
    logger.error(
        "the job database was damaged (%s): %d jobs were read, %d were not; the old file is %s",
        *(error, saved, lost, kept.name),
    )


def _copy_readable(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[int, int]:
    """Jobs with their events, one by one, since one page that cannot be read ends a query; how many could be
    read, and how many not."""
    ways = ("NOT INDEXED ORDER BY seq", "NOT INDEXED ORDER BY seq DESC", "INDEXED BY job_status")
    known = {row["seq"] for way in ways for row in _until_damage(old, f"SELECT seq FROM job {way}")}
    saved = 0
    new.execute("BEGIN")
    for seq in sorted(known):
        for row in _until_damage(old, f"SELECT {JOB_COLUMNS} FROM job WHERE seq = ?", seq):
            columns = "seq, " + JOB_COLUMNS
            new.execute(f"INSERT OR IGNORE INTO job ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (seq, *row))
            saved += 1
            events = "SELECT job, id, type, time, data FROM event WHERE job = ? ORDER BY id"
            rows = list(_until_damage(old, events, row["id"]))
            new.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?)", rows)
            with contextlib.suppress(*UNREADABLE):
                _mend_events(new, row["id"], Job.load(json.loads(row["document"])))
    new.execute("COMMIT")
    return saved, len(known) - saved


def _until_damage(db: sqlite3.Connection, query: str, *values: Any) -> Iterator[sqlite3.Row]:
    """The rows before the first one that cannot be read."""
    with contextlib.suppress(sqlite3.DatabaseError):
        yield from db.execute(query, values)


def _mend_events(db: sqlite3.Connection, job_id: str, job: Job | None) -> None:
    """Remove events that cannot be read; a job that has ended has the event of its end."""
    last = None
    for row in db.execute("SELECT id, type, time, data FROM event WHERE job = ? ORDER BY id", (job_id,)):
        try:
            last = _event(row).type
        except UNREADABLE:
            db.execute("DELETE FROM event WHERE job = ? AND id = ?", (job_id, row["id"]))
    if job is not None and job.over and last not in FINAL_EVENTS:
        _add_events(db, job_id, job.final_event())


def _add_events(db: sqlite3.Connection, job_id: str, events: Sequence[Event]) -> None:
    for event in events:
        db.execute(
            "INSERT INTO event SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM event WHERE job = ?",
            (job_id, event.type, event.time, json.dumps(event.data), job_id),
        )


def _columns(job: Job) -> tuple[Any, ...]:
    """The values of `JOB_COLUMNS` but the document."""
    return job.id, job.owner, job.status, job.finished, job.expires, job.version


def _document(job: Job) -> str:
    return json.dumps(job.dump())


def _job(row: sqlite3.Row) -> Job:
    """Raises `UNREADABLE`."""
    job = Job.load(json.loads(row["document"]))
    if tuple(row)[1:-1] != _columns(job):
        raise ValueError("its columns and its document are not of the same job")
    return job


def _event(row: sqlite3.Row) -> JobEvent:
    """Raises `UNREADABLE`."""
    event = Event(row["type"], row["time"], json.loads(row["data"])).numbered(row["id"])
    payload_of(event)
    return event
