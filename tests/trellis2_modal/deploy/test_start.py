"""A container that cannot start: what it notes, when it stops trying, and what its callers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.trellis2_modal.deploy.emulated import MANIFEST, TableOfBytes
from trellis2_modal.service import service
from trellis2_modal.service.config import DeploySettings
from trellis2_modal.service.deploy.container import FRESH_STARTS, Container, public_reason
from trellis2_modal.service.deploy.modal_calls import capabilities_of
from trellis2_modal.service.deploy.model_host import SnapshotError
from trellis2_modal.service.deploy.start_record import KEY, MOST_STARTS, NO_WORD, Start, StartRecord
from trellis2_modal.service.deploy.weights.manifest import Manifest, WeightsError


class Host:
    """A host whose steps fail as told; notes what was called."""

    def __init__(self, fails: dict[str, Exception] | None = None) -> None:
        self.fails = fails or {}
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], Any]:
        def step() -> dict[str, Any]:
            self.called.append(name)
            if name in self.fails:
                raise self.fails[name]
            return {"backends": {"attention": "sdpa: first choice"}, "cold_start": {"warm_512": 1.0}}

        return step


class Platform:
    """Modal with one container at a time: it starts another while jobs wait and the last one crashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, deployment: str = "first", parallel: int = 1) -> None:
        self.table = TableOfBytes()
        self.deployment, self.parallel = deployment, parallel
        self.starts = 0
        self._monkeypatch = monkeypatch

    def record(self) -> StartRecord:
        return StartRecord(self.table, self.deployment, self.parallel)

    def start(self, host: Host | Exception, gpu_snapshot: bool = False) -> Container:
        """One start without a snapshot; raises what the hooks raise."""
        self.starts += 1
        self._monkeypatch.setenv("MODAL_TASK_ID", f"ta-{self.starts}")

        def open_host() -> Any:
            if isinstance(host, Exception):
                raise host
            return host

        container = Container(open_host, self.record(), gpu_snapshot)
        container.before_snapshot()
        container.after_restore()
        return container

    def until_up(self, host: Host | Exception, most: int = 20) -> Container:
        for _ in range(most):
            try:
                return self.start(host)
            except Exception:  # Modal starts another
                continue
        raise AssertionError(f"{most} starts and no end")


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    return Platform(monkeypatch)


FAILURES = {
    "weights half there": WeightsError("/weights/TRELLIS.2-4B-af44 has no complete.json; run: modal run x"),
    "CUDA before the snapshot": Host({"load_cpu": SnapshotError("CUDA was initialised before the snapshot")}),
    "no GPU": Host({"to_device": SnapshotError("there is no GPU")}),
    "a model that fails": Host({"warm_up": RuntimeError("shapes do not match")}),
}


@pytest.mark.parametrize("host", FAILURES.values(), ids=FAILURES)
def test_two_starts_then_the_reason(host: Host | Exception, platform: Platform) -> None:
    container = platform.until_up(host)
    assert platform.starts == MOST_STARTS
    refusal = container.refusal()
    assert refusal is not None
    assert refusal.status == 503
    assert "the service cannot start: " in refusal.detail
    assert "/weights/" not in refusal.detail
    assert platform.record().read().broken in refusal.detail
    outcome = service.run_call(container, "generate", {}, lambda: b"")
    assert outcome["status"] == "failed"
    assert outcome["problem"]["detail"] == refusal.detail
    assert outcome["seconds"] == 0.0
    later = platform.start(Host())  # one more that Modal starts in this deployment tries nothing
    assert later.refusal() is not None


def test_another_deploy_begins_anew(platform: Platform) -> None:
    platform.until_up(WeightsError("half there"))
    platform.deployment = "second"
    assert platform.record().read().broken == ""
    container = platform.start(Host())
    assert container.refusal() is None
    entry = platform.record().read()
    assert (entry.state, entry.failures, entry.starting) == ("ready", 0, ())
    assert entry.report is not None
    assert entry.report["backends"]


def test_one_failure_between_good_starts_counts_no_further(platform: Platform) -> None:
    for _ in range(3):
        with pytest.raises(WeightsError):
            platform.start(WeightsError("a moment's trouble"))
        assert platform.start(Host()).refusal() is None


@pytest.mark.parametrize("parallel", [1, 2])
def test_containers_that_die_without_a_word_are_counted(
    parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform(monkeypatch, parallel=parallel)
    died = Host({"to_device": KeyboardInterrupt()})  # type: ignore[dict-item]
    for _ in range(parallel + MOST_STARTS - 1):
        with pytest.raises(KeyboardInterrupt):
            platform.start(died)
    container = platform.start(Host())
    assert container.refusal() is not None
    assert NO_WORD in container.refusal().detail  # type: ignore[union-attr]


def test_as_many_as_may_start_at_once_do_not_look_like_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(monkeypatch, parallel=3)
    containers = [Container(Host, platform.record()) for _ in range(3)]  # type: ignore[arg-type]
    for number, container in enumerate(containers):
        monkeypatch.setenv("MODAL_TASK_ID", f"ta-{number}")
        container.before_snapshot()
    for number, container in enumerate(containers):  # restored under another id
        monkeypatch.setenv("MODAL_TASK_ID", f"tb-{number}")
        container.after_restore()
    assert all(container.refusal() is None for container in containers)


def test_weights_that_came_after_the_snapshot_are_loaded(platform: Platform) -> None:
    platform.until_up(WeightsError("half there"))
    container = Container(Host, platform.record())  # type: ignore[arg-type]
    container.before_snapshot()  # a snapshot of a failed start
    platform.table.values.pop(KEY)  # what the download does
    container.after_restore()
    assert container.refusal() is None


def test_a_gpu_snapshot_holds_a_warm_model(platform: Platform) -> None:
    host = Host()
    platform.start(host, gpu_snapshot=True)
    assert host.called == ["load_cpu", "to_device", "warm_up", "resume", "health"]


def test_gpu_snapshots_that_cannot_be_restored_are_given_up(platform: Platform) -> None:
    """A segfault on restore shows as yet another start without a snapshot."""
    for _ in range(FRESH_STARTS):
        platform.start(Host(), gpu_snapshot=True)
    host = Host()
    platform.start(host, gpu_snapshot=True)
    assert host.called == ["load_cpu", "to_device", "warm_up", "health"]


def test_a_table_that_cannot_be_reached_hinders_no_start() -> None:
    class Unreachable:
        def get(self, key: str, default: Any = None) -> Any:
            raise ConnectionError

        def put(self, key: str, value: Any) -> None:
            raise ConnectionError

    host = Host()
    container = Container(lambda: host, StartRecord(Unreachable(), "d"))  # type: ignore[arg-type,return-value]
    container.before_snapshot()
    container.after_restore()
    assert container.refusal() is None


def test_reasons_show_no_folders() -> None:
    error = WeightsError("/weights/a/b.safetensors has 3 bytes; run: modal run -m x::y\nsecond line")
    assert public_reason(error) == "WeightsError: b.safetensors has 3 bytes; run: modal run -m x::y"
    assert public_reason(ValueError()) == "ValueError: no further word"
    assert "https://huggingface.co/a/b" in public_reason(OSError("see https://huggingface.co/a/b"))


def test_the_gateway_takes_no_jobs_until_another_deploy(platform: Platform) -> None:
    async def manifest() -> Manifest:
        return MANIFEST

    async def started() -> Start:
        return platform.record().read()

    def state() -> tuple[str, str]:
        found = asyncio.run(capabilities_of(manifest, DeploySettings(), started))
        return found.state, found.reason

    assert state() == ("ready", "")
    platform.until_up(WeightsError("half there"))
    assert state() == ("degraded", "cannot start: WeightsError: half there")
    platform.deployment = "second"
    assert state() == ("ready", "")
