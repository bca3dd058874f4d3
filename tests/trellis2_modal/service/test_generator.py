"""`TRELLIS2Generator` around a pipeline that is small but real where it counts: it decodes, and can fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trellis2_modal.fake import glb
from tests.trellis2_modal.server import picture
from tests.trellis2_modal.shapes import dual_grid
from trellis2.conditioning.matting.matte import Notice
from trellis2.errors import Cancelled, EmptyStructureError, InvalidArgumentError
from trellis2.pipelines.family import FAMILIES
from trellis2.pipelines.image_to_3d import KeptShape, Variant
from trellis2.progress import Monitor
from trellis2.samplers.acceleration import Passes
from trellis2.sparse import SparseTensor
from trellis2_modal.jobs.execution import DeviceLostError, JobFile, JobMonitor, run_job
from trellis2_modal.jobs.ports import Capabilities
from trellis2_modal.protocol import errors
from trellis2_modal.protocol.replies import JobResult
from trellis2_modal.protocol.requests import (
    SAMPLER_FIELDS,
    ExtractSettings,
    GenerateSettings,
    TextureSettings,
)
from trellis2_modal.protocol.state import MeshState, unpack_state
from trellis2_modal.protocol.views import Inputs, pack_inputs
from trellis2_modal.service import state as states
from trellis2_modal.service.generator import TRELLIS2Generator
from trellis2_modal.service.http.request_parsing import generate_settings, texture_settings


class OutOfMemoryError(RuntimeError):
    """Named as torch's own, which needs a device to be raised."""


class SmallPipeline:
    """Takes what the real one takes; `failures` are raised one a call before it works."""

    def __init__(self, *failures: Exception, types: tuple[str, ...] = ("512", "1024_cascade")) -> None:
        self.available_pipeline_types = list(types)
        self.default_pipeline_type = "1024_cascade"
        self.low_vram = False
        self.family = FAMILIES["Trellis2ImageTo3DPipeline"]
        self.failures = list(failures)
        self.calls: list[dict[str, Any]] = []
        self.devices: list[str] = []

    def to(self, device: str) -> None:
        self.devices.append(device)

    def sampler_settings(self, **asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {
            name.removesuffix("_sampler_params"): {"steps": 7, **params} for name, params in asked.items()
        }

    def variants(
        self, image: Any, seeds: list[int], *, progress: Any, cancel: Any, **options: Any
    ) -> Iterator[Variant]:
        sizes = [i.size for i in image] if isinstance(image, list) else image.size
        self.calls.append({"size": sizes, "low_vram": self.low_vram, "seeds": seeds, **options})
        options["passes"]["texture"] = Passes(12, 0, 0)
        options["notice"](Notice("several_subjects", "2 objects stand out"))
        if self.failures:
            raise self.failures.pop(0)
        if cancel is not None and cancel():
            raise Cancelled("asked to")
        for seed in seeds:
            slat = SparseTensor(
                torch.full((2, 4), float(seed)), torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]).int()
            )
            yield Variant(seed, states.to_mesh(dual_grid(16, seed=seed)), KeptShape(slat, 512))


class SmallExporter:
    def video(self, mesh: Any, monitor: Monitor) -> JobFile:
        monitor.report("preview", 0, 1)
        return JobFile(b"video", "video/mp4")

    def sheet(self, mesh: Any, monitor: Monitor) -> tuple[JobFile, dict[str, Any]]:
        return JobFile(b"sheet", "image/webp"), {"views": 1}

    def asset(self, mesh: Any, settings: ExtractSettings, monitor: Monitor) -> tuple[bytes, dict[str, Any]]:
        return glb(states.from_mesh(mesh)), {"faces": settings.decimation_target}


def make(*failures: Exception, **options: Any) -> tuple[TRELLIS2Generator, SmallPipeline]:
    pipeline = SmallPipeline(*failures, **options)
    generator = TRELLIS2Generator(lambda: pipeline, model="small", exporter=SmallExporter())
    generator.load_model_cpu()
    return generator, pipeline


def test_a_picture_becomes_a_state_and_a_video() -> None:
    generator, pipeline = make()
    seen: list[str] = []
    monitor = JobMonitor(
        lambda progress: seen.append(progress.stage), early=lambda name, file: seen.append(f"has {name}")
    )
    settings = GenerateSettings(seed=3, pipeline_type="512", preview="frames", ss_sampling_steps=5)
    output = run_job(generator, "generate", settings.given(), picture(50), monitor)
    assert set(output.files) == {"state", "light", "video", "preview"}
    assert output.files["light"].data[:4] == b"glTF"
    assert (output.seed, output.resolution) == (3, 16)
    assert "preview" in output.stats["seconds"]
    steps = {stage: used["steps"] for stage, used in output.stats["samplers"].items()}
    assert steps == {"sparse_structure": 5, "shape_slat": 7, "tex_slat": 7}
    assert output.stats["passes"] == {"texture": {"conditional": 12, "null": 0, "forecast": 0, "fp8": 0}}
    assert seen == ["state", "light", "has light", "preview"], "the mesh comes before the turntable"
    (call,) = pipeline.calls
    assert (call["size"], call["seeds"], call["pipeline_type"]) == ((50, 50), [3], "512")
    assert call["sparse_structure_sampler_params"]["steps"] == 5


def test_a_light_mesh_that_cannot_be_made_costs_no_asset(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SmallExporter):
        def asset(self, mesh: Any, settings: ExtractSettings, monitor: Monitor) -> Any:
            raise RuntimeError("no surface")

    generator = TRELLIS2Generator(SmallPipeline, model="small", exporter=Broken())
    generator.load_model_cpu()
    settings = GenerateSettings(preview="frames")
    assert set(run_job(generator, "generate", settings.given(), picture(), Monitor()).files) == {
        "state",
        "video",
        "preview",
    }
    assert "no light mesh" in caplog.text
    settings = GenerateSettings(preview="frames", num_samples=2)
    assert "light" not in run_job(generator, "generate", settings.given(), picture(), Monitor()).files


def test_several_views_reach_the_pipeline_with_their_cameras() -> None:
    generator, pipeline = make()
    payload = pack_inputs(Inputs([picture(50), picture(60)]))
    settings = GenerateSettings(pipeline_type="512", preview="none", views=["front", "back"], fov=25.0)
    run_job(generator, "generate", settings.given(), payload, Monitor())
    (call,) = pipeline.calls
    assert (call["size"], call["cameras"], call["fov"]) == ([(50, 50), (60, 60)], ["front", "back"], 25.0)


def test_without_a_type_the_default_of_the_weights_is_used() -> None:
    generator, pipeline = make()
    generator.generate(picture(), GenerateSettings(preview="none"), Monitor())
    assert pipeline.calls[0]["pipeline_type"] == "1024_cascade"


def test_a_state_becomes_a_file() -> None:
    generator, _ = make()
    state = generator.generate(picture(), GenerateSettings(preview="none"), Monitor()).files["state"].data
    settings = ExtractSettings(simplify="mobile").model_dump(exclude_unset=True)
    output = run_job(generator, "extract", settings, state, Monitor())
    assert output.files["glb"].data[:4] == b"glTF"
    assert output.stats["report"] == {"faces": 15_000}


class Meeting(SmallPipeline, SmallExporter):
    """The second sample waits for the first one's preview to begin, as only a preview beside it can."""

    def __init__(self) -> None:
        super().__init__()
        self.filming, self.sampled = threading.Event(), threading.Event()

    def variants(self, image: Any, seeds: list[int], **options: Any) -> Iterator[Variant]:
        for number, variant in enumerate(super().variants(image, seeds, **options)):
            if number == 1:
                assert self.filming.wait(60), "the first preview waits for the second sample"
                self.sampled.set()
            yield variant

    def video(self, mesh: Any, monitor: Monitor) -> JobFile:
        self.filming.set()
        assert self.sampled.wait(60)
        return super().video(mesh, monitor)


def test_a_preview_is_made_while_the_next_sample_is_drawn() -> None:
    both = Meeting()
    generator = TRELLIS2Generator(lambda: both, exporter=both)
    generator.load_model_cpu()
    output = generator.generate(picture(), GenerateSettings(seed=5, num_samples=3), Monitor())
    assert {f"video{suffix}" for suffix in ("", "-2", "-3")} <= set(output.files)
    assert [v["seed"] for v in output.stats["variants"]] == [5, 6, 7]


def test_a_preview_that_fails_ends_the_whole_job_once() -> None:
    class Blind(SmallExporter):
        def video(self, mesh: Any, monitor: Monitor) -> JobFile:
            raise OutOfMemoryError("out of memory")

    pipeline = SmallPipeline()
    generator = TRELLIS2Generator(lambda: pipeline, exporter=Blind())
    generator.load_model_cpu()
    for samples in (1, 2):
        pipeline.calls.clear()
        with pytest.raises(errors.OutOfMemoryError):
            generator.generate(picture(), GenerateSettings(num_samples=samples), Monitor())
        assert len(pipeline.calls) == 1, "the samples are not drawn again for a preview"


def test_devices_are_moved_to_only_when_asked() -> None:
    generator, pipeline = make()
    assert pipeline.devices == []
    generator.move_model_gpu()
    assert (pipeline.devices, generator.device) == (["cuda"], "cuda")


def test_calls_before_loading_are_errors() -> None:
    with pytest.raises(RuntimeError, match="load_model_cpu"):
        TRELLIS2Generator(SmallPipeline).move_model_gpu()


def test_one_retry_in_low_vram_mode() -> None:
    generator, pipeline = make(OutOfMemoryError("CUDA out of memory"))
    generator.generate(picture(), GenerateSettings(preview="none"), Monitor())
    assert [call["low_vram"] for call in pipeline.calls] == [False, True]
    generator.generate(picture(), GenerateSettings(preview="none"), Monitor())
    assert not pipeline.calls[-1]["low_vram"], "the next job has the whole speed again"


def test_the_weights_own_sampler_settings_are_told() -> None:
    generator, _ = make()
    assert generator.samplers == {name: 7.0 for name in SAMPLER_FIELDS if name.endswith("_sampling_steps")}


@pytest.mark.parametrize(
    "failure",
    [
        OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_what_never_fits_names_a_smaller_setting(failure: Exception) -> None:
    generator, _ = make(failure, failure)
    with pytest.raises(errors.OutOfMemoryError) as caught:
        generator.generate(picture(), GenerateSettings(preview="none"), Monitor())
    assert caught.value.hints == {"suggested": {"pipeline_type": "512"}}
    generator, _ = make(failure, failure, types=("512",))
    with pytest.raises(errors.OutOfMemoryError, match="smallest"):
        generator.generate(picture(), GenerateSettings(preview="none"), Monitor())


def test_memory_is_freed_outside_the_exception() -> None:
    """The tensors of the failed attempt have to be collectable when the cache is emptied."""
    import weakref

    alive: list[Callable[[], Any]] = []

    class Hungry(SmallPipeline):
        def variants(self, image: Any, *rest: Any, **options: Any) -> Iterator[Variant]:
            if not alive:
                big = torch.zeros(10)
                alive.append(weakref.ref(big))
                raise OutOfMemoryError("CUDA out of memory")
            yield from super().variants(image, *rest, **options)

    generator = TRELLIS2Generator(Hungry, exporter=SmallExporter())
    generator.load_model_cpu()
    freed: list[bool] = []
    generator.free_memory = lambda: freed.append(alive[0]() is None)  # type: ignore[method-assign]
    generator.generate(picture(), GenerateSettings(preview="none"), Monitor())
    assert freed == [True]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (EmptyStructureError("nothing"), errors.EmptyResultError),
        (InvalidArgumentError("steps"), errors.InvalidRequestError),
        (RuntimeError("CUDA error: an illegal memory access"), DeviceLostError),
        (Cancelled("stop"), Cancelled),
        (ZeroDivisionError("bug"), ZeroDivisionError),
    ],
)
def test_failures_get_their_type(failure: Exception, expected: type[Exception]) -> None:
    generator, _ = make(failure)
    with pytest.raises(expected):
        generator.generate(picture(), GenerateSettings(preview="none"), Monitor())


def test_pictures_types_and_states_that_cannot_be() -> None:
    generator, _ = make()
    with pytest.raises(errors.InvalidImageError):
        generator.generate(b"no picture", GenerateSettings(preview="none"), Monitor())
    with pytest.raises(errors.UnsupportedPipelineError, match="512, 1024_cascade"):
        generator.generate(picture(), GenerateSettings(pipeline_type="1024"), Monitor())
    with pytest.raises(errors.InvalidStateError):
        generator.extract_glb(b"no state", ExtractSettings(), Monitor())


def test_cancelling_between_stages() -> None:
    generator, _ = make()
    with pytest.raises(Cancelled):
        generator.generate(picture(), GenerateSettings(), Monitor(cancel=lambda: True))


def test_the_state_round_trips_through_torch() -> None:
    state = dual_grid(16)
    mesh = states.to_mesh(state)
    assert mesh.vertices.dtype == torch.float32
    back = states.unpack_state(states.pack_state(mesh, {"seed": 1}, lossless=True))
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.faces, mesh.faces)
    assert torch.equal(back.attrs, mesh.attrs)
    assert back.layout == mesh.layout
    assert list(back.voxel_shape) == list(mesh.voxel_shape)
    assert isinstance(states.from_mesh(back), MeshState)
    mesh.layout = {"base_color": slice(0, 6)}
    with pytest.raises(errors.InvalidStateError, match="layout"):
        states.from_mesh(mesh)
    assert np.isfinite(state.vertices).all()


def test_the_last_state_is_exported_without_unpacking_and_just_as_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unpacked: list[int] = []

    def unpack(packed: bytes) -> MeshState:
        unpacked.append(len(packed))
        return unpack_state(packed)

    def export(generator: TRELLIS2Generator, state: bytes) -> bytes:
        return generator.extract_glb(state, ExtractSettings(), Monitor()).files["glb"].data

    monkeypatch.setattr(states.protocol_state, "unpack_state", unpack)
    generator, _ = make()
    first, second = (
        generator.generate(picture(), GenerateSettings(preview="none", seed=seed), Monitor())
        .files["state"]
        .data
        for seed in (1, 2)
    )
    made = export(generator, second)
    assert not unpacked
    assert export(make()[0], second) == made
    assert len(unpacked) == 1
    assert export(generator, first) != made
    assert export(generator, first) == export(make()[0], first)
    assert len(unpacked) == 3, "the one that was read is held in turn"
    assert export(generator, second) == made
    assert len(unpacked) == 4
    monkeypatch.setattr(states.RecentState, "most", 1000)
    for _ in range(2):
        assert export(generator, first) != made
    assert len(unpacked) == 6, "too large to be held"


def test_a_state_that_is_made_while_another_is_read_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = dual_grid(16, seed=1), dual_grid(16, seed=2)
    recent = states.RecentState()
    recent.hold(b"first", first, exact=False)

    def round_meanwhile(state: MeshState) -> MeshState:
        recent.hold(b"second", second, exact=True)
        return state

    monkeypatch.setattr(states, "rounded_state", round_meanwhile)
    assert recent.unpacked(b"first") is first
    assert recent.unpacked(b"first") is first, "the last one that was read is held, with its own digest"


@pytest.mark.parametrize(("kind", "told"), [("512", False), ("1024_cascade", True)])
def test_the_second_pass_of_a_cascade_is_told_with_its_own_settings(kind: str, told: bool) -> None:
    generator, pipeline = make()
    whole = pipeline.sampler_settings
    pipeline.sampler_settings = lambda **asked: whole(**asked) | {"shape_fine": {"steps": 4}}  # type: ignore[method-assign]
    asked = GenerateSettings.model_validate({"pipeline_type": kind, "preview": "none"})
    output = generator.generate(picture(), asked, Monitor())
    assert ("shape_fine" in output.stats["samplers"]) is told


def test_what_a_person_should_know_is_a_field_of_the_result() -> None:
    generator, pipeline = make(torch.OutOfMemoryError("CUDA out of memory"))
    output = generator.generate(picture(), GenerateSettings(subjects="all"), Monitor())
    result = JobResult.model_validate({"stats": output.stats, "artifacts": {}})
    assert [notice.code for notice in result.warnings] == ["several_subjects"]  # once, of the second try
    assert "warnings" not in result.stats
    assert pipeline.calls[-1]["subjects"] == "all"


def test_quality_and_texture_reach_the_pipeline() -> None:
    generator, pipeline = make()
    generator.generate(picture(), GenerateSettings(quality="fast", texture=False), Monitor())
    generator.generate(picture(), GenerateSettings(), Monitor())
    assert [(call["quality"], call["texture"]) for call in pipeline.calls] == [
        ("fast", False),
        ("exact", True),
    ]


def test_the_weights_own_type_is_the_default_where_it_is_offered() -> None:
    pipeline = SmallPipeline(types=("512", "1024_cascade"))
    pipeline.default_pipeline_type = "512"
    generator = TRELLIS2Generator(lambda: pipeline)
    generator.load_model_cpu()
    known = Capabilities(
        pipeline_types=generator.pipeline_types,
        state="ready",
        texture_types=("512", "1024"),
        default_type=generator.default_type,
    )
    plain, mesh = GenerateSettings.model_validate({}), TextureSettings.model_validate({})
    assert generate_settings(plain, known)["pipeline_type"] == "512"
    assert texture_settings(mesh, known)["pipeline_type"] == "512"
    known = replace(known, default_type="")
    assert generate_settings(plain, known)["pipeline_type"] == "1024_cascade"
    assert texture_settings(mesh, known)["pipeline_type"] == "1024", "the finest"
