"""A job on Modal: what is stored of it, what its call reports, and how its owner sees both."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from ...protocol.errors import JobCancelledError, WorkerDiedError
from ...protocol.replies import FINAL_EVENTS, JobEvent, JobStatus
from ...protocol.requests import JobKind
from ..job import NewJob, new_job_id, utc
from .progress import Entry

NEVER = float("-inf")
JOB_ID = re.compile(r"job_[0-9a-f]{32}")


@dataclass(frozen=True)
class JobRecord:
    """What the job table holds. Times are Unix seconds; `status` and what follows are set at the end."""

    id: str
    owner: str
    kind: JobKind
    settings: dict[str, Any]
    fingerprint: str
    created: float
    source: str | None = None
    call: str | None = None
    cancel_requested: bool = False
    status: str | None = None
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    attempt: int = 0
    seconds: float = 0.0
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None

    def dump(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def load(cls, raw: dict[str, Any]) -> JobRecord:
        """Members that a newer version stored are left out. Raises TypeError for what is no record."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in raw.items() if name in known})


def job_id_of(job: NewJob) -> str:
    """A new id; the same one for the same owner and idempotency key, so that storing it claims the key."""
    if job.idempotency_key is None:
        return new_job_id()
    digest = hashlib.sha256(f"{job.owner}\n{job.idempotency_key}".encode()).hexdigest()
    return f"job_{digest[:32]}"


@dataclass
class LiveJob:
    """A record and what is known of its call beyond it."""

    record: JobRecord
    entry: Entry | None = None
    checked: float = NEVER
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def over(self) -> bool:
        return self.record.status is not None

    @property
    def queued(self) -> bool:
        return not self.over and self.entry is None

    def state(self, now: float) -> str:
        """One of `JobState`."""
        record = self.record
        if record.status == "finished" and record.expires is not None and record.expires <= now:
            return "expired"
        return record.status or ("queued" if self.entry is None else "running")

    def status(self, now: float, position: int | None = None) -> JobStatus:
        """The job as its owner sees it."""
        record, entry = self.record, self.entry
        started = record.started or (entry["started"] if entry else None)
        return JobStatus.model_validate(
            {
                "id": record.id,
                "kind": record.kind,
                "status": self.state(now),
                "created": utc(record.created),
                "started": None if started is None else utc(started),
                "finished": None if record.finished is None else utc(record.finished),
                "expires": None if record.expires is None else utc(record.expires),
                "position": position if self.queued else None,
                "attempt": record.attempt or (entry["attempt"] if entry else 0),
                "progress": None if self.over else _last_progress(entry),
                "settings": record.settings,
                "result": record.result,
                "problem": record.problem,
            }
        )

    def events(self, after: int) -> list[JobEvent]:
        """Events with an id above `after`; ids are places in the job's whole list, so they never change."""
        record = self.record
        listed: list[dict[str, Any]] = [
            {"type": "queued", "time": record.created, "data": {"job": record.id}}
        ]
        listed += [e for e in (self.entry or {}).get("events", ()) if e["type"] not in FINAL_EVENTS]
        if self.over:
            kind = "result" if record.status == "finished" else str(record.status)
            data = record.result if kind == "result" else record.problem if kind == "failed" else {}
            listed.append({"type": kind, "time": record.finished or record.created, "data": data or {}})
        return [
            JobEvent(id=number, type=e["type"], time=utc(e["time"]), data=e["data"])
            for number, e in enumerate(listed, 1)
            if number > after
        ]


def _last_progress(entry: Entry | None) -> dict[str, Any] | None:
    for event in reversed(entry["events"] if entry else ()):
        if event["type"] == "progress":
            data: dict[str, Any] = event["data"]
            return data
        if event["type"] == "started":
            return None
    return None


def ended(record: JobRecord, value: Any, retention: float, now: float) -> JobRecord:
    """The record of a call that returned `value` (see `modal_worker.Outcome`)."""
    if not isinstance(value, dict) or value.get("status") not in ("finished", "failed"):
        error = WorkerDiedError("the call returned nothing that can be used; submit the job again")
        return failed(record, error.problem(), now)
    finished = float(value.get("finished", now))
    seconds = float(value.get("seconds", 0.0))
    common: dict[str, Any] = {
        "status": value["status"],
        "finished": finished,
        "started": finished - seconds,
        "seconds": seconds,
        "attempt": int(value.get("attempt", 1)),
    }
    if value["status"] == "failed":
        return dataclasses.replace(record, **common, problem=value["problem"])
    artifacts = {
        name: {
            "url": f"/jobs/{record.id}/{name}",
            "media_type": file["media_type"],
            "bytes": len(file["data"]),
        }
        for name, file in value["files"].items()
    }
    result = {
        "seed": value["seed"],
        "resolution": value["resolution"],
        "artifacts": artifacts,
        "stats": value["stats"],
    }
    return dataclasses.replace(record, **common, expires=finished + retention, result=result)


def failed(
    record: JobRecord, problem: dict[str, Any], now: float, entry: Entry | None = None, most: float = 0.0
) -> JobRecord:
    """The record of a job that ended without a result; charged from its start, for `most` seconds at most."""
    started = float(entry["started"]) if entry else None
    return dataclasses.replace(
        record,
        status="failed",
        problem=problem,
        started=started,
        finished=now,
        seconds=min(now - started, most) if started is not None else 0.0,
        attempt=int(entry["attempt"]) if entry else record.attempt,
    )


def cancelled(record: JobRecord, now: float, entry: Entry | None, most: float) -> JobRecord:
    """The record of a job that its owner stopped."""
    stopped = failed(record, JobCancelledError().problem(), now, entry, most)
    return dataclasses.replace(stopped, status="cancelled", problem=None, cancel_requested=True)


class ResultCache:
    """The record of a job that ended without a result, charged from its start for `most` seconds at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def get(self, call: str) -> Any:
        """The value, or None."""
        if call not in self._values:
            return None
        self._values.move_to_end(call)
        return self._values[call][0]

    def put(self, call: str, value: Any) -> None:
        """Keep a value, unless it alone is too big."""
        files = value.get("files", {}) if isinstance(value, dict) else {}
        size = sum(len(file["data"]) for file in files.values())
        if call in self._values or size > self._limit:
            return
        self._values[call] = (value, size)
        self._held += size
        while self._held > self._limit:
            _, (_, freed) = self._values.popitem(last=False)
            self._held -= freed
