"""A container's life: both ways of loading, the guards of a snapshot, and how jobs end."""

from __future__ import annotations

import dataclasses
import io
import logging
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modal.exception import InputCancellation
from PIL import Image

from tests.trellis2_modal import fake
from tests.trellis2_modal.deploy.emulated import HostedFake, TableOfBytes
from tests.trellis2_modal.deploy.hub import FolderHub
from tests.trellis2_modal.deploy.published import SETTINGS, write_hub
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs.execution import DeviceLostError
from trellis2_modal.jobs.modal.progress import EventLog
from trellis2_modal.protocol.errors import ExpiredError
from trellis2_modal.protocol.state import decompress_state, unpack_state
from trellis2_modal.service.deploy import model_host
from trellis2_modal.service.deploy.model_host import ModelHost, SnapshotError, load_pipeline, reseed, state_of
from trellis2_modal.service.deploy.start_budget import BUDGET, StartClock
from trellis2_modal.service.deploy.weights.fetch import fetch
from trellis2_modal.service.deploy.weights.manifest import weights_folder

GPU = dataclasses.replace(SETTINGS, gpu="A100-80GB")
STEPS = {f"{part}_sampling_steps": 2 for part in ("ss", "shape_slat", "tex_slat")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete weights folder, fetched from a hub as `download_weights` does."""
    root = tmp_path_factory.mktemp("weights")
    fetch(SETTINGS, root / "volume", FolderHub(write_hub(root / "hub")))
    return weights_folder(SETTINGS, root / "volume")


@pytest.fixture
def host() -> ModelHost:
    return hosted()


def hosted(table: TableOfBytes | None = None, step_seconds: float = 0.0, **changes: Any) -> ModelHost:
    made = ModelHost(dataclasses.replace(SETTINGS, **changes), Path("nowhere"), "cpu", table)
    made._generator = HostedFake(step_seconds=step_seconds)  # type: ignore[assignment]
    return made


def photo() -> bytes:
    """A shaded disc with its own matte."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    shade = np.clip(160 + 80 * x - 60 * y, 0, 255)
    pixels = np.stack([shade, shade * 0.6, 255 - shade, (x * x + y * y < 0.64) * 255], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# --- starting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loading", ["snapshot", "stream"])
def test_from_a_weights_folder_to_an_asset(
    folder: Path, loading: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    host = ModelHost(dataclasses.replace(SETTINGS, loading=loading), folder, progress=TableOfBytes())
    host.load_cpu()
    assert ("load" in host.clock.seconds) == (loading == "snapshot")
    host.to_device()
    stages = {"import", "load", "to_device"}
    logged = {record.__dict__.get("stage") for record in caplog.records}
    assert stages | {"ready"} <= logged
    made = host.run("generate", STEPS | {"pipeline_type": "512", "preview": "none"}, photo, "fc-1")
    assert made["status"] == "finished", made
    assert "first_step" in host.clock.seconds
    state = state_of(made)
    assert len(unpack_state(decompress_state(state)).vertices) == made["stats"]["vertices"]
    small = {"decimation_target": 2000, "texture_size": 256, "remesh": False}
    asset = host.run("extract", small, lambda: state, "fc-2")
    if asset["status"] == "finished":
        assert asset["files"]["glb"]["data"][:4] == b"glTF"
    else:  # random weights may leave nothing that is a surface: then it is said
        assert asset["problem"]["type"] in ("invalid-state", "invalid-request"), asset
    health = host.health()
    assert health["jobs"] == 2
    assert health["pipeline_types"] == ["512", "1024", "1024_cascade", "1536_cascade"]
    assert set(health["cold_start"]) >= stages


def test_nothing_is_on_a_device_before_the_snapshot(folder: Path) -> None:
    pipeline = load_pipeline(folder, "cpu")
    assert pipeline.low_vram is False
    models: dict[str, torch.nn.Module] = pipeline.models  # type: ignore[attr-defined]
    assert {p.device.type for m in models.values() for p in m.parameters()} == {"cpu"}
    assert torch.bfloat16 in {p.dtype for m in models.values() for p in m.parameters()}  # not doubled


def test_weights_are_streamed_to_the_device_that_is_asked_for(folder: Path) -> None:
    models: dict[str, torch.nn.Module] = load_pipeline(folder, "meta").models  # type: ignore[attr-defined]
    assert {p.device.type for m in models.values() for p in m.parameters()} == {"meta"}


def test_cuda_before_the_snapshot_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(SnapshotError, match="before the snapshot"):
        ModelHost(GPU, folder).load_cpu()


def test_loading_asks_no_device_for_anything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("CUDA was asked before the snapshot")

    for name in ("_lazy_init", "is_available", "device_count", "get_device_capability", "current_device"):
        monkeypatch.setattr(torch.cuda, name, touched)
    ModelHost(GPU, folder).load_cpu()


def test_a_container_without_its_gpu_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    host = ModelHost(GPU, Path("nowhere"))
    host._generator = HostedFake(step_seconds=0.0)  # type: ignore[assignment]
    with pytest.raises(SnapshotError, match="there is no GPU"):
        host.to_device()


def test_a_gpu_container_moves_the_weights_and_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    host = ModelHost(GPU, Path("nowhere"))
    generator = HostedFake(step_seconds=0.0)
    generator.move_model_gpu = done.append  # type: ignore[attr-defined]
    host._generator = generator  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronize"))
    host.to_device()
    assert done == ["cuda", "synchronize"]


def test_restored_containers_draw_different_numbers() -> None:
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    drawn = set()
    for _ in range(3):  # three containers restored from one snapshot
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        reseed()
        drawn.add((random.random(), float(np.random.rand()), float(torch.rand(1))))
    assert len(drawn) == 3
    assert all(len({d[i] for d in drawn}) == 3 for i in range(3))


def test_a_restored_container_reseeds_before_it_takes_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[bool] = []
    monkeypatch.setattr(model_host, "reseed", lambda: seeded.append(True))
    host = hosted()
    host.to_device()
    assert seeded == [True]


def test_stages_over_their_budget_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = StartClock()
    clock.record("import", BUDGET["import"] + 1)
    clock.record("to_device", 0.5)
    clock.loaded()
    clock.ready()
    levels = {r.__dict__["stage"]: r.levelno for r in caplog.records}
    assert levels == {"import": logging.WARNING, "to_device": logging.INFO, "ready": logging.INFO}
    assert set(clock.summary()) == {"import", "to_device", "since_load"}


# --- jobs ---------------------------------------------------------------------------------------------------


def generate(host: ModelHost, seed: int = 1, call: str | None = "fc-1") -> dict[str, Any]:
    return host.run("generate", {"seed": seed, "preview": "none"}, picture, call)


@pytest.mark.parametrize(
    ("seed", "slug"), [(fake.OUT_OF_MEMORY, "out-of-memory"), (fake.BUG, "internal-error")]
)
def test_a_failure_is_returned_and_memory_given_back(host: ModelHost, seed: int, slug: str) -> None:
    freed = HostedFake.freed
    outcome = generate(host, seed)
    assert (outcome["status"], outcome["problem"]["type"]) == ("failed", slug)
    assert "secret" not in str(outcome)
    assert HostedFake.freed == freed + 1
    assert generate(host)["status"] == "finished"


def test_bad_settings_are_named(host: ModelHost) -> None:
    outcome = host.run("generate", {"seed": "many", "colour": 1}, picture)
    assert outcome["problem"]["type"] == "invalid-request"
    assert "colour" in outcome["problem"]["detail"]


def test_a_bad_picture_is_the_callers_fault(host: ModelHost) -> None:
    outcome = host.run("generate", {}, lambda: b"no picture")
    assert outcome["problem"]["type"] == "invalid-image"


def test_a_source_that_is_gone(host: ModelHost) -> None:
    outcome = host.run("extract", {}, lambda: state_of({"status": "failed"}))
    assert outcome["problem"]["type"] == ExpiredError.slug


def test_a_lost_device_is_raised(host: ModelHost) -> None:
    with pytest.raises(DeviceLostError):
        generate(host, fake.DEVICE_LOST)


def test_a_poisoned_context_is_found_after_a_failure(
    host: ModelHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(host.generator, "free_memory", poisoned)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        generate(host, fake.BUG)


def test_a_cancellation_passes_through_and_the_host_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    table = TableOfBytes()
    host = hosted(table)
    real = host.generator.generate

    def cancelled(*args: Any) -> Any:
        raise InputCancellation("Input was cancelled by user")

    monkeypatch.setattr(host.generator, "generate", cancelled)
    freed = HostedFake.freed
    with pytest.raises(InputCancellation):
        generate(host)
    assert HostedFake.freed == freed + 1
    monkeypatch.setattr(host.generator, "generate", real)
    assert generate(host, call="fc-2")["status"] == "finished"
    assert "progress" not in {t.name for t in threading.enumerate()}


def test_a_job_stops_itself_before_modal_ends_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_host, "TIMEOUT_MARGIN", 0.05)
    host = hosted(step_seconds=0.1, gpu_timeout=0.15)
    outcome = generate(host)
    assert outcome["problem"]["type"] == "job-timeout"
    assert outcome["seconds"] < 0.4


def test_a_job_that_ran_out_of_time_is_not_tried_again() -> None:
    table = TableOfBytes()
    table.put("fc-1", {"attempt": 1, "started": time.time() - 10_000, "events": []})
    outcome = generate(hosted(table))
    assert outcome["problem"]["type"] == "job-timeout"


def test_a_job_that_kills_containers_is_not_tried_for_ever() -> None:
    table = TableOfBytes()
    table.put("fc-1", {"attempt": 3, "started": time.time(), "left": True, "events": []})
    outcome = generate(hosted(table))
    assert outcome["problem"]["type"] == "worker-died"
    assert outcome["attempt"] == 4


@pytest.mark.parametrize(
    ("most", "left", "again"), [(2, False, False), (2, True, True), (3, False, True), (1, True, False)]
)
def test_after_a_crash_the_last_container_only_says_so(most: int, left: bool, again: bool) -> None:
    table = TableOfBytes()
    entry = {"attempt": 1, "started": time.time() - 90, "seen": time.time() - 60, "left": left, "events": []}
    table.put("fc-1", entry)
    outcome = generate(hosted(table, gpu_max_attempts=most))
    assert outcome["status"] == ("finished" if again else "failed")
    assert 30 <= outcome["seconds"] < 60  # the first attempt is charged until it was last seen


def test_a_job_that_is_stopped_from_outside_leaves_a_word() -> None:
    table = TableOfBytes()
    with pytest.raises(KeyboardInterrupt):
        hosted(table).run("generate", {}, _interrupted, "fc-1")
    assert table.get("fc-1")["left"] is True
    assert generate(hosted(table))["attempt"] == 2


def _interrupted() -> bytes:
    raise KeyboardInterrupt


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_is_whole_in_order_and_thinned() -> None:
    table = TableOfBytes()
    log = EventLog(table, "fc-1", interval=60.0)
    assert log.begin() is None
    for step in range(101):
        log.report("shape", step, 100)
    log.report("texture", 0, 10)
    log.close()
    events = table.get("fc-1")["events"]
    assert [e["type"] for e in events] == ["started", "progress", "progress", "progress"]
    assert [(e["data"]["stage"], e["data"]["step"]) for e in events[1:]] == [
        ("shape", 0),
        ("shape", 100),
        ("texture", 0),
    ]


def test_a_second_run_goes_on_with_the_list() -> None:
    table = TableOfBytes()
    first = EventLog(table, "fc-1", interval=0.0)
    first.begin()
    first.report("shape", 0, 2)
    first.close()
    second = EventLog(table, "fc-1", interval=0.0)
    earlier = second.begin()
    assert earlier is not None
    assert earlier["attempt"] == 1
    second.close()
    kinds = [e["type"] for e in table.get("fc-1")["events"]]
    assert kinds == ["started", "progress", "restarted", "started"]
    assert second.attempt == 2


def test_a_job_goes_on_when_nobody_can_be_told(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(TableOfBytes):
        def get(self, key: str, default: Any = None) -> Any:
            raise ConnectionError

        def put(self, key: str, value: Any) -> None:
            raise ConnectionError

    assert generate(hosted(Deaf()))["status"] == "finished"
    assert "progress cannot be written" in caplog.text


def test_writing_never_holds_the_model_up() -> None:
    class Slow(TableOfBytes):
        def put(self, key: str, value: Any) -> None:
            if self.puts:
                threading.Event().wait(0.2)
            super().put(key, value)

    log = EventLog(Slow(), "fc-1", interval=0.0)
    log.begin()
    start = time.perf_counter()
    for step in range(50):
        log.report("shape", step, 50)
    assert time.perf_counter() - start < 0.15
    log.close()
