"""The file behind the job table: its schema, its rows as jobs and events, what is done when it is damaged.

A damaged file is copied beside itself and written anew from what can be read of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...durable import sync_folder
from ...protocol.events import payload_of
from ...protocol.replies import FINAL_EVENTS, JobEvent
from ..job import Event, Job

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


def connect(path: Path) -> sqlite3.Connection:
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


def is_damage(error: Exception, opening: bool = False) -> bool:
    """Whether an error of SQLite's means that the file is damaged. While `opening` it may also be one that it
    takes for of another format; and SQLite's words about damage need not be text."""
    if isinstance(error, (DamagedError, UnicodeDecodeError)):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (*CORRUPT, *((sqlite3.SQLITE_ERROR,) if opening else ()))


def salvage(path: Path, error: Exception) -> None:
    """Put a new database with all that can be read in the place of a damaged one, of which a copy stays."""
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns():x}")
    for ending in ("", "-wal"):
        if Path(f"{path}{ending}").exists():
            shutil.copy2(f"{path}{ending}", f"{kept}{ending}")
    fresh, headed = (path.with_name(path.name + ending) for ending in (".new", ".headed"))
    for left in (fresh, headed):
        left.unlink(missing_ok=True)
    new = _plain(fresh)
    try:
        new.executescript(SCHEMA)
        _give_head(headed, fresh.read_bytes(), kept.read_bytes())
        known: set[int] = set()
        for source in (path, headed):
            old = _plain(source)
            try:
                known |= _copy_readable(old, new)
            finally:
                old.close()
        saved = new.execute("SELECT count(*) FROM job").fetchone()[0]
    finally:
        new.close()
        headed.unlink(missing_ok=True)
    for ending in ("-wal", "-shm"):  # of the old one; they would be taken for the new one's
        Path(f"{path}{ending}").unlink(missing_ok=True)
    os.replace(fresh, path)
    sync_folder(path.parent)
    logger.error(
        "the job database was damaged (%s): %d jobs were read, %d were not; the old file is %s",
        *(error, saved, len(known) - saved, kept.name),
    )


def _give_head(target: Path, fresh: bytes, damaged: bytes) -> None:
    """A copy of a damaged file under the first page of a new one: that says where every table begins, and is
    the same in all our files but for the number of pages (big-endian, at byte 28)."""
    size = int.from_bytes(fresh[16:18], "big")
    pages = max(1, len(damaged) // size)
    target.write_bytes(fresh[:28] + pages.to_bytes(4, "big") + fresh[32:size] + damaged[size : pages * size])


def _copy_readable(old: sqlite3.Connection, new: sqlite3.Connection) -> set[int]:
    """Copy the jobs that `new` does not have, with their events, one by one: a page that cannot be read ends
    a query. Returns the numbers of all jobs that were seen."""
    ways = ("NOT INDEXED ORDER BY seq", "NOT INDEXED ORDER BY seq DESC", "INDEXED BY job_status")
    known = {row["seq"] for way in ways for row in _until_damage(old, f"SELECT seq FROM job {way}")}
    insertion = f"INSERT OR IGNORE INTO job (seq, {JOB_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    new.execute("BEGIN")
    for seq in sorted(known):
        for row in _until_damage(old, f"SELECT {JOB_COLUMNS} FROM job WHERE seq = ?", seq):
            if new.execute(insertion, (seq, *row)).rowcount == 1:
                events = "SELECT job, id, type, time, data FROM event WHERE job = ? ORDER BY id"
                rows = list(_until_damage(old, events, row["id"]))
                new.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?)", rows)
                with contextlib.suppress(*UNREADABLE):
                    mend_events(new, row["id"], Job.load(json.loads(row["document"])))
    new.execute("COMMIT")
    return known


def _until_damage(db: sqlite3.Connection, query: str, *values: Any) -> Iterator[sqlite3.Row]:
    """The rows before the first one that cannot be read."""
    with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        yield from db.execute(query, values)


def mend_events(db: sqlite3.Connection, job_id: str, job: Job | None) -> None:
    """Remove events that cannot be read; a job that has ended has the event of its end."""
    last = None
    for row in db.execute("SELECT id, type, time, data FROM event WHERE job = ? ORDER BY id", (job_id,)):
        try:
            last = event_of(row).type
        except UNREADABLE:
            db.execute("DELETE FROM event WHERE job = ? AND id = ?", (job_id, row["id"]))
    if job is not None and job.over and last not in FINAL_EVENTS:
        add_events(db, job_id, job.final_event())


def add_events(db: sqlite3.Connection, job_id: str, events: Sequence[Event]) -> None:
    for event in events:
        db.execute(
            "INSERT INTO event SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM event WHERE job = ?",
            (job_id, event.type, event.time, json.dumps(event.data), job_id),
        )


def columns(job: Job) -> tuple[Any, ...]:
    """The values of `JOB_COLUMNS` but the document."""
    return job.id, job.owner, job.status, job.finished, job.expires, job.version


def document(job: Job) -> str:
    return json.dumps(job.dump())


def job_of(row: sqlite3.Row) -> Job:
    """Raises `UNREADABLE`."""
    job = Job.load(json.loads(row["document"]))
    if tuple(row)[1:-1] != columns(job):
        raise ValueError("its columns and its document are not of the same job")
    return job


def event_of(row: sqlite3.Row) -> JobEvent:
    """Raises `UNREADABLE`."""
    event = Event(row["type"], row["time"], json.loads(row["data"])).numbered(row["id"])
    payload_of(event)
    return event
