"""Jobs, their events and what they used, in SQLite: everything that must survive a `kill -9`.

Every change of a job's status is one conditional UPDATE, so that a job reaches a final status once, whoever
asks first. Calls are short and blocking; the backend makes them in a thread.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..protocol.errors import ConflictError, NotFoundError, ServiceError, StorageFullError
from ..protocol.replies import JobEvent, JobStatus
from .admission import DAY, check_room, check_source
from .backend import Charge, NewJob

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  created REAL NOT NULL,
  started REAL,
  finished REAL,
  expires REAL,
  attempt INTEGER NOT NULL DEFAULT 0,
  cancel_requested INTEGER NOT NULL DEFAULT 0,
  settings TEXT NOT NULL,
  source TEXT,
  fingerprint TEXT NOT NULL,
  idempotency_key TEXT,
  progress TEXT,
  result TEXT,
  problem TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_idempotency ON jobs (owner, idempotency_key);
CREATE INDEX IF NOT EXISTS jobs_status ON jobs (status, seq);
CREATE INDEX IF NOT EXISTS jobs_owner ON jobs (owner, seq);
CREATE TABLE IF NOT EXISTS events (
  job TEXT NOT NULL,
  id INTEGER NOT NULL,
  type TEXT NOT NULL,
  time REAL NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (job, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS charges (
  job TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  time REAL NOT NULL,
  seconds REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS charges_owner ON charges (owner, time);
"""

Row = sqlite3.Row


class JobStore:
    """The job table of one server. Thread-safe; one connection behind a lock."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

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

    def _one(self, query: str, *values: Any) -> Row | None:
        with self._lock:
            row: Row | None = self._db.execute(query, values).fetchone()
            return row

    def _all(self, query: str, *values: Any) -> list[Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # --- accepting ---------------------------------------------------------------------------------------

    def find_repeat(self, job: NewJob) -> Row | None:
        """The job that the same idempotency key made; raises `ConflictError` when it asked otherwise."""
        if job.idempotency_key is None:
            return None
        row = self._one(
            "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?", job.owner, job.idempotency_key
        )
        if row is not None and row["fingerprint"] != job.fingerprint:
            raise ConflictError("use a new Idempotency-Key for a new request")
        return row

    def accept(self, job_id: str, job: NewJob, queue_limit: int) -> tuple[Row, bool]:
        """Insert a job after every check, in one transaction; (row, False) when it is a repeat."""
        with self._change() as db:
            repeat = self.find_repeat(job)
            if repeat is not None:
                return repeat, False
            self._check_room(job, queue_limit)
            if job.source is not None:
                self._check_source(job.owner, job.source)
            db.execute(
                "INSERT INTO jobs (id, owner, kind, status, created, settings, source, fingerprint,"
                " idempotency_key) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?)",
                (
                    job_id,
                    job.owner,
                    job.kind,
                    time.time(),
                    json.dumps(job.settings),
                    job.source,
                    job.fingerprint,
                    job.idempotency_key,
                ),
            )
            self._add_event(job_id, "queued", {"job": job_id})
            return self.row(job_id), True

    def _check_room(self, job: NewJob, queue_limit: int) -> None:
        charges = self.charges(job.owner, time.time() - DAY)
        check_room(job, self.count("queued"), queue_limit, self.active(job.owner), charges)

    def _check_source(self, owner: str, source: str) -> None:
        row = self.owned(owner, source)
        check_source(source, row["kind"], row["status"])

    # --- looking -----------------------------------------------------------------------------------------

    def row(self, job_id: str) -> Row:
        found = self._one("SELECT * FROM jobs WHERE id = ?", job_id)
        if found is None:
            raise NotFoundError("there is no such job, or it is not yours")
        return found

    def owned(self, owner: str, job_id: str) -> Row:
        """The row of the owner's job; another's is as unknown as one that never was."""
        found = self._one("SELECT * FROM jobs WHERE id = ? AND owner = ?", job_id, owner)
        if found is None:
            raise NotFoundError("there is no such job, or it is not yours")
        return found

    def page(self, owner: str, limit: int, before: str | None) -> list[Row]:
        if before is None:
            return self._all("SELECT * FROM jobs WHERE owner = ? ORDER BY seq DESC LIMIT ?", owner, limit)
        seq = self.owned(owner, before)["seq"]
        return self._all(
            "SELECT * FROM jobs WHERE owner = ? AND seq < ? ORDER BY seq DESC LIMIT ?", owner, seq, limit
        )

    def position(self, row: Row) -> int | None:
        if row["status"] != "queued":
            return None
        found = self._one("SELECT count(*) FROM jobs WHERE status = 'queued' AND seq < ?", row["seq"])
        return int(found[0]) if found else 0

    def count(self, status: str) -> int:
        found = self._one("SELECT count(*) FROM jobs WHERE status = ?", status)
        return int(found[0]) if found else 0

    def totals(self) -> dict[str, int]:
        rows = self._all("SELECT status, count(*) FROM jobs GROUP BY status")
        return {status: int(count) for status, count in rows}

    def active(self, owner: str) -> int:
        found = self._one(
            "SELECT count(*) FROM jobs WHERE owner = ? AND status IN ('queued', 'running')", owner
        )
        return int(found[0]) if found else 0

    def with_status(self, status: str) -> list[Row]:
        return self._all("SELECT * FROM jobs WHERE status = ? ORDER BY seq", status)

    def known_ids(self) -> set[str]:
        return {row["id"] for row in self._all("SELECT id FROM jobs")}

    def events(self, job_id: str, after: int) -> list[JobEvent]:
        rows = self._all(
            "SELECT id, type, time, data FROM events WHERE job = ? AND id > ? ORDER BY id", job_id, after
        )
        return [
            JobEvent(id=r["id"], type=r["type"], time=utc(r["time"]), data=json.loads(r["data"]))
            for r in rows
        ]

    def charges(self, owner: str, since: float) -> list[Charge]:
        """Charges in the day before and after now: a clock that jumped ahead and back does not lock a key."""
        rows = self._all(
            "SELECT job, time, seconds FROM charges WHERE owner = ? AND time > ? AND time < ?",
            owner,
            since,
            time.time() + DAY,
        )
        return [Charge(r["job"], r["time"], r["seconds"]) for r in rows]

    # --- moving on ---------------------------------------------------------------------------------------

    def claim(self) -> Row | None:
        """The oldest queued job, now running, or None."""
        with self._change() as db:
            row = db.execute("SELECT id FROM jobs WHERE status = 'queued' ORDER BY seq LIMIT 1").fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET status = 'running', attempt = attempt + 1, started = ? WHERE id = ?",
                (time.time(), row["id"]),
            )
            claimed = self.row(row["id"])
            self._add_event(row["id"], "started", {"attempt": claimed["attempt"]})
            return claimed

    def progress(self, job_id: str, report: dict[str, Any]) -> None:
        with self._change() as db:
            db.execute(
                "UPDATE jobs SET progress = ? WHERE id = ? AND status = 'running'",
                (json.dumps(report), job_id),
            )
            self._add_event(job_id, "progress", report)

    def requeue(self, job_id: str, reason: str) -> bool:
        """Put a running job back; a job that its owner wants gone is cancelled instead."""
        with self._change() as db:
            row = self.row(job_id)
            if row["status"] != "running":
                return False
            if row["cancel_requested"]:
                return self._end(job_id, "cancelled", {}, seconds=0.0)
            db.execute("UPDATE jobs SET status = 'queued', progress = NULL WHERE id = ?", (job_id,))
            self._add_event(job_id, "restarted", {"reason": reason})
            return True

    def finish(self, job_id: str, result: dict[str, Any], seconds: float, expires: float) -> bool:
        with self._change() as db:
            db.execute("UPDATE jobs SET expires = ? WHERE id = ? AND status = 'running'", (expires, job_id))
            return self._end(job_id, "finished", result, seconds)

    def fail(self, job_id: str, error: ServiceError, seconds: float = 0.0) -> bool:
        with self._change():
            return self._end(job_id, "failed", error.problem(), seconds)

    def cancelled(self, job_id: str, seconds: float = 0.0) -> bool:
        with self._change():
            return self._end(job_id, "cancelled", {}, seconds)

    def request_cancel(self, owner: str, job_id: str) -> Row:
        """A queued job is cancelled at once; a running one is marked, its worker must be told."""
        with self._change() as db:
            row = self.owned(owner, job_id)
            if row["status"] == "queued":
                self._end(job_id, "cancelled", {}, seconds=0.0)
            elif row["status"] == "running":
                db.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ?", (job_id,))
            return self.row(job_id)

    def _end(self, job_id: str, status: str, data: dict[str, Any], seconds: float) -> bool:
        """The one way into a final status; False when the job is in one already."""
        column = {"finished": "result", "failed": "problem", "cancelled": None}[status]
        now = time.time()
        done = self._db.execute(
            "UPDATE jobs SET status = ?, finished = ?, progress = NULL WHERE id = ?"
            " AND status IN ('queued', 'running')",
            (status, now, job_id),
        )
        if done.rowcount != 1:
            return False
        if column is not None:
            self._db.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (json.dumps(data), job_id))
        self._add_event(job_id, {"finished": "result"}.get(status, status), data)
        if seconds > 0:
            owner = self.row(job_id)["owner"]
            self._db.execute(
                "INSERT OR IGNORE INTO charges VALUES (?, ?, ?, ?)", (job_id, owner, now, seconds)
            )
        return True

    def _add_event(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO events SELECT ?, coalesce(max(id), 0) + 1, ?, ?, ? FROM events WHERE job = ?",
            (job_id, kind, time.time(), json.dumps(data), job_id),
        )

    # --- forgetting --------------------------------------------------------------------------------------

    def expire(self, now: float) -> list[str]:
        """Mark finished jobs whose time is over; returns their ids, whose files may go."""
        with self._change() as db:
            rows = db.execute(
                "SELECT id FROM jobs WHERE status = 'finished' AND expires <= ?", (now,)
            ).fetchall()
            ids = [row["id"] for row in rows]
            db.executemany("UPDATE jobs SET status = 'expired' WHERE id = ?", [(i,) for i in ids])
            return ids

    def forget(self, before: float) -> None:
        """Remove every trace of jobs that ended before a time."""
        with self._change() as db:
            ended = "SELECT id FROM jobs WHERE finished < ? AND status IN ('failed', 'cancelled', 'expired')"
            db.execute(f"DELETE FROM events WHERE job IN ({ended})", (before,))
            db.execute(f"DELETE FROM jobs WHERE id IN ({ended})", (before,))
            db.execute("DELETE FROM charges WHERE time < ?", (before,))


def new_job_id() -> str:
    return "job_" + secrets.token_hex(16)


def status_of(row: Row, position: int | None = None) -> JobStatus:
    """The row as its owner sees it."""

    def moment(column: str) -> datetime | None:
        return None if row[column] is None else utc(row[column])

    def document(column: str) -> Any:
        return json.loads(row[column]) if row[column] else None

    return JobStatus.model_validate(
        {
            "id": row["id"],
            "kind": row["kind"],
            "status": row["status"],
            "created": moment("created"),
            "started": moment("started"),
            "finished": moment("finished"),
            "expires": moment("expires"),
            "position": position,
            "attempt": row["attempt"],
            "progress": document("progress"),
            "settings": document("settings"),
            "result": document("result"),
            "problem": document("problem"),
        }
    )


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)
