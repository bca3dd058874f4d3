"""Jobs and their events in SQLite: everything that must survive a `kill -9`."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...protocol.errors import StorageFullError
from ...protocol.replies import JobEvent
from ..job import Event, Job
from ..locks import FileLock
from ..ports import Query

logger = logging.getLogger(__name__)

SCHEMA = """
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
"""


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
            db = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None, timeout=10)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(SCHEMA)
            self._connection = db

    async def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        self._folder_lock.release()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the job table is not open")
        return self._connection

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; a full disk becomes `StorageFullError`."""
        with self._lock:
            try:
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

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    async def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        def read() -> list[sqlite3.Row]:
            with self._lock:
                return self._db.execute(query, values).fetchall()

        return await asyncio.to_thread(read)

    # --- the port ----------------------------------------------------------------------------------------

    async def insert(self, job: Job, event: Event) -> Job:
        def write() -> bool:
            with self._change() as db:
                columns = (job.id, job.owner, job.status, job.finished, job.expires, job.version, _dump(job))
                done = db.execute(
                    "INSERT OR IGNORE INTO job (id, owner, status, finished, expires, version, document)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    columns,
                )
                if done.rowcount == 1:
                    _add_events(db, job.id, [event])
                return done.rowcount == 1

        return job if await asyncio.to_thread(write) else await self.get(job.id) or job

    async def get(self, job_id: str) -> Job | None:
        found = _jobs(await self._all("SELECT id, document FROM job WHERE id = ?", job_id))
        return found[0] if found else None

    async def swap(self, old: Job, new: Job, event: Event | None = None) -> bool:
        def write() -> bool:
            with self._change() as db:
                done = db.execute(
                    "UPDATE job SET status = ?, finished = ?, expires = ?, version = ?, document = ?"
                    " WHERE id = ? AND version = ?",
                    (new.status, new.finished, new.expires, new.version, _dump(new), old.id, old.version),
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
        where = " AND ".join(text for text, _ in conditions) or "1"
        values = [value for _, part in conditions for value in part]
        return _jobs(await self._all(f"SELECT id, document FROM job WHERE {where} ORDER BY seq", *values))

    async def page(self, owner: str, limit: int, before: Job | None) -> list[Job]:
        older = "" if before is None else " AND seq < (SELECT seq FROM job WHERE id = ?)"
        values = [owner, *([] if before is None else [before.id]), limit]
        query = f"SELECT id, document FROM job WHERE owner = ?{older} ORDER BY seq DESC LIMIT ?"
        return _jobs(await self._all(query, *values))

    async def counts(self) -> dict[str, int]:
        rows = await self._all("SELECT status, count(*) FROM job GROUP BY status")
        return {status: int(count) for status, count in rows}

    async def ids(self) -> set[str]:
        return {row["id"] for row in await self._all("SELECT id FROM job")}

    async def forget(self, job_ids: Iterable[str]) -> None:
        ids = [(job_id,) for job_id in job_ids]

        def write() -> None:
            with self._change() as db:
                db.executemany("DELETE FROM event WHERE job = ?", ids)
                db.executemany("DELETE FROM job WHERE id = ?", ids)

        await asyncio.to_thread(write)

    async def report(self, job_id: str, events: Sequence[Event]) -> None:
        def write() -> None:
            with self._change() as db:
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
        return [Event(r["type"], r["time"], json.loads(r["data"])).numbered(r["id"]) for r in rows]


def _add_events(db: sqlite3.Connection, job_id: str, events: Sequence[Event]) -> None:
    for event in events:
        db.execute(
            "INSERT INTO event SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM event WHERE job = ?",
            (job_id, event.type, event.time, json.dumps(event.data), job_id),
        )


def _dump(job: Job) -> str:
    return json.dumps(job.dump())


def _jobs(rows: list[sqlite3.Row]) -> list[Job]:
    """The rows' jobs; a damaged row is reported and left out, so that it stops nothing else."""
    jobs = []
    for row in rows:
        try:
            jobs.append(Job.load(json.loads(row["document"])))
        except ValueError as error:
            logger.error("the stored job %s cannot be read: %s", row["id"], str(error).splitlines()[0])
    return jobs
