"""Jobs and their events in SQLite: what must survive a `kill -9`, a power cut, and damage to a part of it.

What cannot be read is reported in the log and left out; all else goes on. A row that holds no whole job is
marked `damaged`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...protocol.errors import StorageFullError, UnavailableError, in_one_line
from ...protocol.replies import JobEvent
from ..job import Event, Job
from ..locks import FileLock
from ..ports import WITHOUT_FILES, Query
from .database import (
    DAMAGED,
    JOB_COLUMNS,
    UNREADABLE,
    add_events,
    columns,
    connect,
    document,
    event_of,
    is_damage,
    job_of,
    mend_events,
    salvage,
)

logger = logging.getLogger(__name__)


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
                self._connection = connect(self._path)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not is_damage(error, opening=True):
                    raise
                self._restore(error)

    def _restore(self, error: Exception) -> None:
        self._disconnect()
        salvage(self._path, error)
        self._connection = connect(self._path)

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
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error):
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
                jobs.append(job_of(row))
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
                    (*columns(job), document(job)),
                )
                if done.rowcount == 1:
                    db.execute("DELETE FROM event WHERE job = ?", (job.id,))
                    add_events(db, job.id, [event])
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
                    (*columns(new)[2:], document(new), old.id, old.version),
                )
                if done.rowcount == 1 and event is not None:
                    add_events(db, old.id, [event])
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
                add_events(db, job_id, events)

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
            return [event_of(row) for row in rows]
        except UNREADABLE as error:
            reason = in_one_line(error)
            logger.error("an event of job %s cannot be read and is left out: %s", job_id, reason)
        job = await self.get(job_id)

        def mend() -> None:
            with self._change() as db:
                mend_events(db, job_id, job)

        await asyncio.to_thread(mend)
        return await self.events(job_id, after, limit)
