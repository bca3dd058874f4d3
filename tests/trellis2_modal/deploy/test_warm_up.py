"""The warm-up: every stage that a job can have runs once, and what it cannot do hinders no start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.trellis2.pipelines import tiny_checkpoint
from tests.trellis2_modal import fake
from trellis2.progress import Monitor
from trellis2_modal.jobs.execution import JobFile, JobOutput
from trellis2_modal.protocol.errors import EmptyResultError, OutOfMemoryError
from trellis2_modal.protocol.requests import GenerateSettings
from trellis2_modal.service.deploy import warm_up as module
from trellis2_modal.service.deploy.start_budget import BUDGET, StartClock
from trellis2_modal.service.deploy.warm_up import warm_up
from trellis2_modal.service.generator import TRELLIS2Generator


class Recorder:
    """A generator that notes the progress of every job that another one runs."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.model, self.device = inner, inner.model, inner.device
        self.pipeline_types, self.samplers = inner.pipeline_types, inner.samplers
        self.backends = inner.backends
        self.stages: dict[str, set[str]] = {}

    def generate(self, picture: bytes, settings: Any, monitor: Monitor) -> JobOutput:
        name = str(settings.pipeline_type)
        made: JobOutput = self.inner.generate(picture, settings, self._noting(name))
        return made

    def extract_glb(self, state: bytes, settings: Any, monitor: Monitor) -> JobOutput:
        made: JobOutput = self.inner.extract_glb(state, settings, self._noting("export"))
        return made

    def _noting(self, name: str) -> Monitor:
        seen = self.stages.setdefault(name, set())
        return Monitor(lambda progress: seen.add(progress.stage))


class NotingExporter:
    """Renders nothing; notes what is asked for."""

    def __init__(self) -> None:
        self.called: list[Any] = []

    def video(self, mesh: Any, monitor: Monitor) -> JobFile:
        return self._noted("video", mesh)

    def sheet(self, mesh: Any, monitor: Monitor) -> tuple[JobFile, dict[str, Any]]:
        return self._noted("sheet", mesh), {}

    def asset(self, mesh: Any, settings: Any, monitor: Monitor) -> tuple[bytes, dict[str, Any]]:
        return self._noted((settings.remesh, settings.decimation_target), mesh).data, {}

    def _noted(self, what: Any, mesh: Any) -> JobFile:
        assert len(mesh.faces) > 0
        self.called.append(what)
        return JobFile(b"file", "x")


def test_the_real_model_runs_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trellis2.pipelines import Trellis2ImageTo3DPipeline

    monkeypatch.setattr(tiny_checkpoint, "OCCUPIED_QUANTILE", 0.9999)  # a few voxels
    folder = tiny_checkpoint.write_checkpoint(tmp_path)
    exporter = NotingExporter()
    large = ("shape_slat_flow_model_1024", "tex_slat_flow_model_1024")  # for a quick test
    generator = TRELLIS2Generator(
        lambda: Trellis2ImageTo3DPipeline.from_pretrained(folder, skip=large), exporter=exporter
    )
    generator.load_model_cpu()
    recorder, clock = Recorder(generator), StartClock()
    warm_up(recorder, clock)
    sampled = {"sparse_structure", "shape", "texture", "decode_shape", "decode_texture", "mesh", "state"}
    assert sampled <= recorder.stages["512"], recorder.stages
    light = ("auto", 10_000)
    assert exporter.called == [light, "video", "sheet", ("auto", 500_000), (True, 100_000)]
    assert set(clock.seconds) == {"warm_512", "warm_export"} <= set(BUDGET)


class Scripted:
    """Fails where it is told to."""

    model, device, samplers = "scripted", "cpu", dict[str, float]()

    def __init__(self, offered: tuple[str, ...], **failures: Exception) -> None:
        self.backends: dict[str, str] = {}
        self.pipeline_types, self.failures = offered, failures
        self.calls: list[str] = []

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput:
        self._call(f"at_{settings.pipeline_type}")
        return JobOutput({"state": JobFile(b"state", "x")})

    def extract_glb(self, state: bytes, settings: Any, monitor: Monitor) -> JobOutput:
        assert state == b"state"
        self._call("export")
        return JobOutput({})

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]


def test_no_memory_at_1024_leaves_512_and_the_export(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    generator = Scripted(("512", "1024", "1024_cascade"), at_1024_cascade=OutOfMemoryError("does not fit"))
    warm_up(generator, StartClock())
    assert generator.calls == ["at_512", "at_1024_cascade", "export", "export"]
    assert "does not fit" in caplog.text


def test_without_any_object_nothing_is_exported() -> None:
    generator = Scripted(("1024",), at_1024=EmptyResultError("nothing"))
    warm_up(generator, StartClock())
    assert generator.calls == ["at_1024"]


def test_what_would_fail_every_job_fails_the_start() -> None:
    generator = Scripted(("512",), at_512=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="do not match"):
        warm_up(generator, StartClock())


def test_the_picture_has_a_subject() -> None:
    made = fake.create().generate(module.picture(), GenerateSettings(pipeline_type="512"), Monitor())
    assert made.files["state"].data
