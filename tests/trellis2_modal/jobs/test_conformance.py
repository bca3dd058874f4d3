"""What the API promises of jobs, once, over every set of ports."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.trellis2_modal import fake
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs.admission import DAY
from trellis2_modal.jobs.modal import progress
from trellis2_modal.protocol.errors import (
    ConflictError,
    ExpiredError,
    JobCancelledError,
    NotFoundError,
    NotReadyError,
    OutOfMemoryError,
    QueueFullError,
    QuotaExceededError,
    TooManyJobsError,
    UnavailableError,
    WorkerDiedError,
)
from trellis2_modal.protocol.events import Queued, Restarted, Started, payload_of
from trellis2_modal.protocol.replies import FINAL_EVENTS, JobResult, ProgressReport
from trellis2_modal.protocol.state import decompress_state, unpack_state
from trellis2_modal.protocol.views import Inputs, pack_inputs

from .conftest import NEW, Port, Rig, until

Promise = Callable[[Rig], Coroutine[Any, Any, None]]


def keep(port: Port, promise: Promise, **settings: Any) -> None:
    """Run a promise over an engine of its own."""

    async def scenario() -> None:
        async with port.rig(**settings) as rig:
            await promise(rig)

    asyncio.run(scenario())


def test_a_mesh_is_textured_and_a_variant_is_extracted(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        payload = pack_inputs(Inputs([picture()], mesh=b"mesh"))
        textured = await rig.ended(await rig.submit(kind="texture", payload=payload, settings={"seed": 2}))
        assert (textured.kind, textured.status) == ("texture", "finished")
        assert (await rig.engine.result("anna", textured.id, "glb")).read() == b"mesh"
        made = await rig.ended(await rig.submit(settings={"seed": 5, "num_samples": 2, "preview": "none"}))
        assert made.result is not None
        assert set(made.result.artifacts) == {"state", "state-2"}
        files = []
        for variant in (1, 2):
            settings = {"variant": variant}
            job = await rig.submit(kind="extract", payload=None, source=made.id, settings=settings)
            assert (await rig.ended(job)).status == "finished"
            files.append((await rig.engine.result("anna", job, "glb")).read())
        assert files[0] != files[1]

    keep(port, promise)


def test_a_job_runs_and_tells_of_it(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        job = await rig.submit()
        events = await rig.events(job)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        kinds = [event.type for event in events]
        assert kinds[:2] == ["queued", "started"]
        assert set(kinds[2:-1]) == {"progress"}
        payloads = [payload_of(event) for event in events]
        assert payloads[0] == Queued(job=job, position=0)
        assert payloads[1] == Started(attempt=1)
        assert isinstance(payloads[2], ProgressReport)
        assert isinstance(payloads[-1], JobResult)
        assert await rig.events(job, after=2) == events[2:]
        assert await rig.events(job, after=events[-1].id) == []
        done = await rig.status(job)
        assert (done.status, done.attempt, done.settings["seed"]) == ("finished", 1, 1)
        assert done.result == payloads[-1]
        state = await rig.engine.result("anna", job, "state")
        assert state.size == done.result.artifacts["state"].bytes
        unpack_state(decompress_state(state.read()))
        assert state.read(1, 4) == state.read()[1:4]
        with pytest.raises(NotFoundError):
            await rig.engine.result("anna", job, "glb")
        assert [charge.job for charge in await rig.engine.usage("anna", 0)] == [job]

        async def counted() -> bool:
            return rig.engine.stats().totals == {"finished": 1}

        await until(counted, "the count")

    keep(port, promise)


def test_a_job_is_its_owners_alone(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        job = await rig.submit()
        await rig.ended(job)
        engine = rig.engine
        for call in (
            engine.status("bert", job),
            engine.cancel("bert", job),
            engine.result("bert", job, "state"),
            engine.list_jobs("bert", 9, job),
            engine.submit(replace(NEW, owner="bert", kind="extract", payload=None, source=job)),
            anext(engine.events("bert", job)),
            engine.status("anna", "job_" + "0" * 32),
            engine.status("anna", "../../etc/passwd"),
        ):
            with pytest.raises(NotFoundError):
                await call
        assert await engine.list_jobs("bert", 9) == []
        assert await engine.usage("bert", 0) == []

    keep(port, promise)


def test_jobs_wait_in_order(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        jobs = [await rig.submit() for _ in range(4)]
        await rig.running(jobs[0])
        assert [(await rig.status(job)).position for job in jobs] == [None, 0, 1, 2]

        async def paged() -> list[str]:
            page = await rig.engine.list_jobs("anna", 3)
            rest = await rig.engine.list_jobs("anna", 3, page[-1].id)
            return [job.id for job in (*page, *rest)]

        assert await paged() == jobs[::-1]
        assert await rig.engine.active("anna") == 4
        rig.release()
        ends = [(await rig.ended(job)).finished for job in jobs]
        assert ends == sorted(ends)  # type: ignore[type-var]

    keep(port, promise)


def test_a_watcher_sees_every_new_place(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        jobs = [await rig.submit() for _ in range(4)]
        await rig.running(jobs[0])
        places: list[int | None] = []

        async def watch() -> None:
            async for event in rig.engine.events("anna", jobs[-1]):
                if isinstance(payload := payload_of(event), Queued):
                    places.append(payload.position)

        async def moved(place: int) -> None:
            async def there() -> bool:
                return place in places

            await until(there, f"place {place}")

        watching = asyncio.create_task(watch())
        await moved(2)
        await rig.engine.cancel("anna", jobs[1])
        await moved(1)
        await rig.engine.cancel("anna", jobs[2])
        await moved(0)
        assert places in ([2, 1, 0], [3, 2, 1, 0])
        rig.release()
        await watching

    keep(port, promise)


def test_the_same_idempotency_key_is_the_same_job(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        first = await rig.submit(idempotency_key="k")
        assert await rig.submit(idempotency_key="k") == first
        assert await rig.submit(idempotency_key="k", owner="bert") != first
        with pytest.raises(ConflictError):
            await rig.submit(idempotency_key="k", request_digest="another")
        at_once = await asyncio.gather(*(rig.submit(idempotency_key="l") for _ in range(8)))
        assert len(set(at_once)) == 1
        rig.release()
        await rig.ended(first)
        assert await rig.submit(idempotency_key="k") == first
        await rig.ended(at_once[0])
        assert len(await rig.engine.list_jobs("anna", 9)) == 2

    keep(port, promise)


def test_a_full_queue_and_a_busy_owner(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        await rig.running(await rig.submit())
        await rig.submit()
        with pytest.raises(TooManyJobsError):
            await rig.submit(max_active=2)
        await rig.submit(owner="bert")
        with pytest.raises(QueueFullError):
            await rig.submit(owner="carl")
        assert rig.engine.stats().queued == 2

    keep(port, promise, queue_limit=2)


def test_quota_is_reserved_at_once_and_settled_at_the_end(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        job = await rig.submit(gpu_seconds=50)
        with pytest.raises(QuotaExceededError) as refused:
            await rig.submit(gpu_seconds=50)
        assert 0 < (refused.value.retry_after or 0) <= DAY
        at_once = await asyncio.gather(
            *(rig.submit(gpu_seconds=50, owner="bert") for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(one, str) for one in at_once) == 1
        rig.release()
        await rig.ended(job)
        await rig.submit(gpu_seconds=50)  # it used less than was reserved
        used = sum(charge.seconds for charge in await rig.engine.usage("anna", 0))
        assert 0 < used < 50
        with pytest.raises(QuotaExceededError):
            await rig.submit(gpu_seconds=used)

    keep(port, promise)


def test_a_source_is_ones_own_finished_generation(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        source = await rig.submit()
        extract = {"kind": "extract", "payload": None, "settings": {"decimation_target": 5000}}
        with pytest.raises(NotReadyError):
            await rig.submit(source=source, **extract)
        rig.release()
        await rig.ended(source)
        job = await rig.submit(source=source, **extract)
        assert (await rig.ended(job)).status == "finished"
        assert (await rig.engine.result("anna", job, "glb")).read(0, 4) == b"glTF"
        with pytest.raises(NotFoundError):
            await rig.submit(source=job, **extract)

    keep(port, promise)


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        first, second = await rig.submit(), await rig.submit()
        await rig.running(first)
        assert (await rig.engine.cancel("anna", second)).status == "cancelled"
        with pytest.raises(JobCancelledError):
            await rig.engine.result("anna", second, "state")
        assert [event.type for event in await rig.events(second)] == ["queued", "cancelled"]
        rig.release()
        assert (await rig.ended(first)).status == "finished"
        assert (await rig.engine.cancel("anna", first)).status == "finished"
        assert [charge.job for charge in await rig.engine.usage("anna", 0)] == [first]

    keep(port, promise)


def test_a_running_job_is_cancelled_and_charged(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        job = await rig.submit()
        await rig.running(job)
        with pytest.raises(NotReadyError):
            await rig.engine.result("anna", job, "state")
        await rig.engine.cancel("anna", job)
        assert (await rig.ended(job)).status == "cancelled"
        assert (await rig.events(job))[-1].type == "cancelled"
        assert [charge.job for charge in await rig.engine.usage("anna", 0)] == [job]
        rig.release()
        assert (await rig.ended(await rig.submit())).status == "finished"

    keep(port, promise)


def test_a_failing_job_says_why_and_the_next_one_runs(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        job = await rig.submit(settings={"seed": fake.OUT_OF_MEMORY})
        done = await rig.ended(job)
        assert done.status == "failed"
        with pytest.raises(OutOfMemoryError, match="try 512"):
            await rig.engine.result("anna", job, "state")
        last = (await rig.events(job))[-1]
        assert payload_of(last) == done.problem
        assert (await rig.ended(await rig.submit())).status == "finished"

    keep(port, promise)


def test_a_killed_worker_costs_a_try_that_is_charged(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        job = await rig.submit()
        await rig.running(job)
        await asyncio.sleep(0.2)
        await rig.kill_worker()
        await rig.running(job, attempt=2)
        rig.release()
        done = await rig.ended(job)
        assert (done.status, done.attempt) == ("finished", 2)
        payloads = [payload_of(event) for event in await rig.events(job)]
        assert [p.attempt for p in payloads if isinstance(p, Started)] == [1, 2]
        assert len([p for p in payloads if isinstance(p, Restarted) and p.reason]) == 1
        (charge,) = await rig.engine.usage("anna", 0)
        assert charge.seconds >= 0.2

    keep(port, promise)


def test_a_job_that_kills_its_worker_twice_fails(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        poison = await rig.submit(settings={"seed": fake.CRASH})
        done = await rig.ended(poison)
        assert (done.status, done.attempt) == ("failed", 2)
        with pytest.raises(WorkerDiedError, match="try smaller settings"):
            await rig.engine.result("anna", poison, "state")
        assert [charge.job for charge in await rig.engine.usage("anna", 0)] == [poison]
        assert (await rig.ended(await rig.submit())).status == "finished"

    keep(port, promise)


def test_files_expire_and_jobs_are_forgotten(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        job = await rig.submit()
        assert (await rig.ended(job)).status == "expired"
        await rig.engine.sweep()
        with pytest.raises(ExpiredError):
            await rig.engine.result("anna", job, "state")
        with pytest.raises(ExpiredError):
            await rig.submit(kind="extract", payload=None, source=job)
        rig.engine.settings = replace(rig.engine.settings, row_retention=-60.0)
        await rig.engine.sweep()
        with pytest.raises(NotFoundError):
            await rig.status(job)
        assert await rig.engine.list_jobs("anna", 9) == []

    keep(port, promise, retention=0.0)


def test_a_stopping_server_ends_its_streams_and_takes_nothing(port: Port) -> None:
    async def promise(rig: Rig) -> None:
        job = await rig.submit()
        await rig.running(job)
        watching = asyncio.create_task(rig.events(job))
        await asyncio.sleep(0)
        rig.engine.begin_shutdown()
        assert "result" not in [event.type for event in await watching]
        assert rig.engine.capabilities().state == "stopping"
        with pytest.raises(UnavailableError):
            await rig.submit()

    keep(port, promise)


def test_everything_survives_a_new_server(port: Port) -> None:
    async def scenario() -> None:
        async with port.rig() as rig:
            running, waiting = await rig.submit(idempotency_key="k"), await rig.submit()
            await rig.running(running)
            await rig.engine.close()
        async with port.rig() as rig:
            assert (await rig.ended(running)).status == "finished"
            assert (await rig.ended(waiting)).status == "finished"
            assert await rig.submit(idempotency_key="k") == running
            finals = [e.type for e in await rig.events(running) if e.type in ("result", "failed")]
            assert finals == ["result"]
            assert (await rig.engine.result("anna", running, "state")).size > 0

    asyncio.run(scenario())


def test_a_clock_that_was_wrong_locks_no_one_out(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 400 * DAY)
        job = await rig.submit(gpu_seconds=1e-9)
        await rig.ended(job)
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        await rig.submit(gpu_seconds=1e-9)

    keep(port, promise)


def test_quota_is_free_again_after_a_day(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async def promise(rig: Rig) -> None:
        rig.release()
        await rig.ended(await rig.submit())
        with pytest.raises(QuotaExceededError) as refused:
            await rig.submit(gpu_seconds=1e-9)
        assert DAY - 60 < (refused.value.retry_after or 0) <= DAY
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + DAY - 60)
        with pytest.raises(QuotaExceededError):
            await rig.submit(gpu_seconds=1e-9)
        monkeypatch.setattr(time, "time", lambda: real() + DAY + 60)
        await rig.ended(await rig.submit(gpu_seconds=1e-9))

    keep(port, promise)


def test_a_clock_that_steps_back_under_a_job(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async def promise(rig: Rig) -> None:
        job = await rig.submit()
        await rig.running(job)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        waiting = await rig.submit()
        assert (await rig.status(job)).status == "running"
        rig.release()
        assert (await rig.ended(job)).status == "finished"
        assert (await rig.ended(waiting)).status == "finished"
        ids = [event.id for event in await rig.events(job)]
        assert ids == list(range(1, len(ids) + 1))
        assert all(0 <= charge.seconds < 600 for charge in await rig.engine.usage("anna", 0))
        assert (await rig.engine.result("anna", job, "state")).size > 0

    keep(port, promise)


def test_a_job_ends_once_whoever_is_first(port: Port) -> None:
    """Cancelled by several at once, as it comes to its end and as its worker dies."""

    async def promise(rig: Rig) -> None:
        for kills in (False, True):
            rig.gate.unlink(missing_ok=True)
            job = await rig.submit()
            await rig.running(job)
            watching = [asyncio.create_task(rig.events(job)) for _ in range(3)]
            rig.release()
            killing = [rig.kill_worker()] if kills else []
            await asyncio.gather(*killing, *(rig.engine.cancel("anna", job) for _ in range(4)))
            done = await rig.ended(job)
            assert done.status in ("finished", "cancelled")
            await asyncio.gather(*(rig.engine.cancel("anna", job) for _ in range(4)))
            assert (await rig.status(job)).status == done.status
            for events in [await rig.events(job), *await asyncio.gather(*watching)]:
                finals = [event.type for event in events if event.type in FINAL_EVENTS]
                assert finals == ["result" if done.status == "finished" else "cancelled"]
            assert len([c for c in await rig.engine.usage("anna", 0) if c.job == job]) <= 1

    keep(port, promise)


def test_a_thousand_events_of_one_job(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of them is bounded, however fast they come and however many watch."""
    monkeypatch.setattr(progress, "WRITE_INTERVAL", 0.1)
    port.generator |= {"steps": 1000, "pad": 10_000, "step_seconds": 0.0}

    async def promise(rig: Rig) -> None:
        rig.release()
        job = await rig.submit()
        tracemalloc.start()
        try:
            every = await asyncio.gather(*(rig.events(job) for _ in range(4)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        steps = [p.step for p in map(payload_of, every[0]) if isinstance(p, ProgressReport)]
        assert (steps[0], steps[-1]) == (0, 1000)
        assert steps == sorted(steps)
        assert len(steps) < 200
        assert peak < 32 << 20, "a thousand of them are 40 MB for four watchers"
        assert all([event.id for event in events] == [event.id for event in every[0]] for events in every)

    keep(port, promise, event_interval=0.1)
