from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trellis2_modal.jobs.backend import NewJob
from trellis2_modal.jobs.store import DAY, JobStore, status_of
from trellis2_modal.protocol.errors import (
    ConflictError,
    InternalError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    QuotaExceededError,
    TooManyJobsError,
)

JOB = NewJob(owner="anna", kind="generate", settings={"seed": 1}, payload=b"x", fingerprint="f")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def run(store: JobStore, job_id: str, seconds: float = 10.0) -> None:
    store.accept(job_id, JOB, 9)
    store.claim()
    store.finish(job_id, {}, seconds, time.time() + 60)


def test_jobs_run_in_order_and_end_once(store: JobStore) -> None:
    for name in ("a", "b"):
        store.accept(name, JOB, 9)
    assert store.position(store.row("b")) == 1
    claimed = store.claim()
    assert claimed is not None
    assert claimed["id"] == "a"
    assert store.finish("a", {"seed": 1}, 2.0, 0)
    assert not store.finish("a", {"seed": 2}, 2.0, 0)
    assert not store.fail("a", InternalError())
    assert not store.cancelled("a")
    assert not store.requeue("a", "again")
    assert [e.type for e in store.events("a", 0)] == ["queued", "started", "result"]
    assert status_of(store.row("a")).result is not None
    assert [c.seconds for c in store.charges("anna", 0)] == [2.0]


def test_the_same_idempotency_key_is_the_same_job(store: JobStore) -> None:
    job = replace(JOB, idempotency_key="k")
    row, fresh = store.accept("a", job, 9)
    again, repeated = store.accept("b", job, 9)
    assert (fresh, repeated, again["id"]) == (True, False, row["id"])
    with pytest.raises(ConflictError):
        store.accept("c", replace(job, fingerprint="g"), 9)
    assert store.accept("d", replace(job, owner="bert"), 9)[1]


def test_a_full_queue_and_a_busy_owner(store: JobStore) -> None:
    store.accept("a", replace(JOB, max_active=1), 1)
    with pytest.raises(QueueFullError):
        store.accept("b", replace(JOB, owner="bert"), 1)
    with pytest.raises(TooManyJobsError):
        store.accept("b", replace(JOB, max_active=1), 9)


def test_quota_is_what_the_last_day_used(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, "a", seconds=100)
    with pytest.raises(QuotaExceededError) as refused:
        store.accept("b", replace(JOB, gpu_seconds=100), 9)
    assert 0 < (refused.value.retry_after or 0) <= DAY
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + DAY + 1)
    store.accept("b", replace(JOB, gpu_seconds=100), 9)


def test_a_clock_that_was_wrong_locks_no_one_out(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * DAY)
    run(store, "a", seconds=100)
    monkeypatch.setattr(time, "time", lambda: now)
    store.accept("b", replace(JOB, gpu_seconds=100), 9)


def test_a_clock_that_steps_back_gives_nothing_away(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, "a", seconds=100)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    with pytest.raises(QuotaExceededError):
        store.accept("b", replace(JOB, gpu_seconds=100), 9)


def test_a_source_has_to_be_ones_own_finished_generation(store: JobStore) -> None:
    extract = replace(JOB, kind="extract", source="a")
    with pytest.raises(NotFoundError):
        store.accept("x", extract, 9)
    store.accept("a", JOB, 9)
    with pytest.raises(NotReadyError):
        store.accept("x", extract, 9)
    store.claim()
    store.finish("a", {}, 1.0, time.time() + 60)
    with pytest.raises(NotFoundError):
        store.accept("x", replace(extract, owner="bert"), 9)
    assert store.accept("x", extract, 9)[1]


def test_cancelling(store: JobStore) -> None:
    for name in ("a", "b"):
        store.accept(name, JOB, 9)
    store.claim()
    assert store.request_cancel("anna", "b")["status"] == "cancelled"
    assert store.request_cancel("anna", "a")["cancel_requested"] == 1
    with pytest.raises(NotFoundError):
        store.request_cancel("bert", "a")
    assert store.requeue("a", "the worker died")
    assert store.row("a")["status"] == "cancelled"


def test_expiring_and_forgetting(store: JobStore) -> None:
    run(store, "a")
    assert store.expire(time.time()) == []
    assert store.expire(time.time() + 120) == ["a"]
    assert status_of(store.row("a")).status == "expired"
    store.forget(time.time() + 1)
    assert store.known_ids() == set()
    assert store.events("a", 0) == []


def test_everything_survives_reopening(tmp_path: Path) -> None:
    first = JobStore(tmp_path / "again.sqlite")
    run(first, "a")
    first.accept("b", JOB, 9)
    second = JobStore(tmp_path / "again.sqlite")  # as after kill -9: the first was never closed
    assert second.totals() == {"finished": 1, "queued": 1}
    second.close()
    first.close()
