"""The model behind three calls: a picture becomes an asset's state and preview, a mesh and a picture the
textured mesh, a state a file.

`TRELLIS2Generator` is plain Python around a pipeline that a factory makes, so that the local worker and the
Modal class run the same code, and tests put another pipeline in. The gateway never imports this.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trellis2.errors import Cancelled
from trellis2.progress import Monitor

from ..jobs.execution import DeviceLostError, JobFile, JobOutput
from ..protocol import errors
from ..protocol.presets import LIGHT_SETTINGS
from ..protocol.replies import ASSET_MEDIA_TYPES, STATE_MEDIA_TYPE, artifact_of
from ..protocol.requests import (
    PIPELINE_TYPES,
    SAMPLER_FIELDS,
    SAMPLER_STAGES,
    ExtractSettings,
    GenerateSettings,
    TextureSettings,
    default_pipeline_type,
)
from ..protocol.state import pack_state
from ..protocol.views import unpack_inputs
from . import state as states
from .config import KNOWN_MODELS, default_data_dir
from .deploy.weights.fetch import fetch_upsampler
from .deploy.weights.hub import HuggingFaceHub
from .inputs import opened
from .stage_clock import StageClock
from .texturing import Painter, texture_mesh, texturing_of

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Pipeline(Protocol):
    """The part of `Trellis2ImageTo3DPipeline` that is used here."""

    low_vram: bool

    @property
    def variants(self) -> Callable[..., Any]: ...

    @property
    def available_pipeline_types(self) -> Any: ...

    @property
    def default_pipeline_type(self) -> str: ...

    @property
    def family(self) -> Any: ...

    @property
    def sampler_settings(self) -> Callable[..., dict[str, dict[str, Any]]]: ...

    def to(self, device: str) -> Any: ...


class Exporter(Protocol):
    """Pictures and files of a decoded asset; `trellis2_modal.service.exporter` is the real one."""

    def video(self, mesh: Any, monitor: Monitor) -> JobFile: ...

    def sheet(self, mesh: Any, monitor: Monitor) -> tuple[JobFile, dict[str, Any]]: ...

    def asset(
        self, mesh: Any, settings: ExtractSettings, monitor: Monitor
    ) -> tuple[bytes, dict[str, Any]]: ...

    def textured(
        self, mesh: Any, place: Any, voxels: Any, resolution: int, settings: TextureSettings, monitor: Monitor
    ) -> tuple[bytes, dict[str, Any], Any]: ...


class TRELLIS2Generator:
    """Owns a pipeline: `load_model_cpu`, then `move_model_gpu`, then any number of calls, one at a time."""

    def __init__(
        self,
        factory: Callable[[], Pipeline],
        model: str = "",
        device: str = "cpu",
        exporter: Exporter | None = None,
        lossless_state: bool = False,
        texturing: Callable[[Any], Painter | None] = lambda pipeline: None,
    ) -> None:
        self._factory = factory
        self._texturing = texturing
        self.painter: Painter | None = None
        self._pipeline: Pipeline | None = None
        self._exporter = exporter
        self._lossless = lossless_state
        self._recent = states.RecentState()
        self.model = model
        self.device = device
        self.pipeline_types: tuple[str, ...] = ()
        self.texture_types: tuple[str, ...] = ()
        self.default_type = ""
        self.samplers: dict[str, float] = {}
        """The weights' own sampler settings by request field: what holds where a request sets none."""

        self.views: dict[str, Any] = {}
        """A `ViewSupport` as plain data."""

    # --- loading -----------------------------------------------------------------------------------------

    def load_model_cpu(self) -> None:
        """Build the pipeline on the CPU; touches no accelerator."""
        pipeline = self._factory()
        offered = tuple(pipeline.available_pipeline_types)
        self.pipeline_types = tuple(name for name in PIPELINE_TYPES if name in offered)
        self.default_type = pipeline.default_pipeline_type
        self._pipeline, self.painter = pipeline, self._texturing(pipeline)
        if self.painter is not None:
            self.texture_types = tuple(map(str, self.painter.available_resolutions))
        seen = pipeline.family.views
        self.views = {"least": seen[0], "most": seen[-1], "cameras": pipeline.family.pixel_aligned}
        used = pipeline.sampler_settings(**{argument: {} for argument in SAMPLER_STAGES.values()})
        self.samplers = {
            field: float(used[stage][parameter])
            for field, (argument, parameter) in SAMPLER_FIELDS.items()
            if parameter in used.get(stage := argument.removesuffix("_sampler_params"), {})
        }

    def move_model_gpu(self, device: str | None = None) -> None:
        """Move the pipeline to its device (`cuda` when none was given at construction)."""
        self.device = device or (self.device if self.device != "cpu" else "cuda")
        if self._pipeline is None:
            raise RuntimeError("call load_model_cpu first")
        for part in self._parts:
            part.to(self.device)

    @property
    def backends(self) -> dict[str, str]:
        """Which implementation each operation uses on the device, and why; asks the device what it is."""
        import o_voxel.backends

        import trellis2.backends

        rows: list[Any] = [
            *trellis2.backends.describe(self.device),
            *o_voxel.backends.describe(self.device),
        ]
        return {row.operation: f"{row.backend}: {row.reason}" for row in rows}

    @property
    def pipeline(self) -> Pipeline:
        if self._pipeline is None:
            raise RuntimeError("call load_model_cpu first")
        return self._pipeline

    @property
    def _parts(self) -> list[Pipeline | Painter]:
        """What has been loaded."""
        return [part for part in (self._pipeline, self.painter) if part is not None]

    @property
    def exporter(self) -> Exporter:
        if self._exporter is None:
            from .exporter import MeshExporter

            self._exporter = MeshExporter()
        return self._exporter

    # --- the calls ---------------------------------------------------------------------------------------

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput:
        """State, preview and statistics of the asset in a picture, or in several (see `pack_inputs`).

        Raises the `ServiceError` that says what to do, `Cancelled`, or `DeviceLostError`.
        """
        kind = settings.pipeline_type or default_pipeline_type(self.pipeline_types, self.default_type)
        if kind not in self.pipeline_types:
            raise errors.UnsupportedPipelineError(
                f"the loaded weights offer {', '.join(self.pipeline_types)}, not {kind}"
            )
        clock = StageClock(monitor)
        warnings: list[dict[str, str]] = []
        passes: dict[str, Any] = {}
        shape = self._kept_shape(picture, clock)
        made = self.guarded(
            lambda: self._variants(picture, settings, kind, shape, clock, warnings, passes), kind
        )
        files = {
            artifact_of(name, n): file for n, (own, _) in enumerate(made, 1) for name, file in own.items()
        }
        variants = [numbers for _, numbers in made]
        samplers = self.pipeline.sampler_settings(**settings.sampler_params())
        if not kind.endswith("_cascade"):
            samplers.pop("shape_fine", None)  # of a second pass
        stats = variants[0] | {
            "samplers": samplers,
            "passes": {stage: dataclasses.asdict(counted) for stage, counted in passes.items()},
        }
        if len(variants) > 1:
            stats["variants"] = variants
        stats["warnings"] = warnings
        stats["seconds"] = clock.seconds()
        return JobOutput(files, variants[0]["seed"], variants[0]["resolution"], stats)

    def _variants(
        self,
        picture: bytes,
        settings: GenerateSettings,
        kind: str,
        shape: Any,
        clock: StageClock,
        warnings: list[dict[str, str]],
        passes: dict[str, Any],
    ) -> list[tuple[dict[str, JobFile], dict[str, Any]]]:
        """The files and the numbers of each sample.

        On a CPU the previews of one are made while the next is sampled, on cores that would idle; two are
        busy already (benchmarks/NOTES.md). On a device they wait, since the kernels of a second thread would
        end up in the first one's graph.
        """
        sampled = threading.Event()
        outer = clock.monitor
        behind = Monitor(
            lambda p: outer.progress(p) if sampled.is_set() and outer.progress else None, outer.cancel
        )
        variants = self._run_pipeline(picture, settings, kind, shape, outer, warnings, passes)
        if self.device != "cpu" or len(settings.seeds) == 1:
            return [self._variant(variant, settings, kind, clock) for variant in list(variants)]
        with ThreadPoolExecutor(1, "previews") as previews:
            try:
                waiting = [
                    previews.submit(self._variant, variant, settings, kind, StageClock(behind))
                    for variant in variants
                ]
                sampled.set()
                return [future.result() for future in waiting]
            except BaseException:
                previews.shutdown(wait=False, cancel_futures=True)
                raise

    def _variant(
        self, variant: Any, settings: GenerateSettings, kind: str, clock: StageClock
    ) -> tuple[dict[str, JobFile], dict[str, Any]]:
        """State and previews of one asset, and its numbers."""
        mesh = variant.asset
        info = {
            "seed": variant.seed,
            "pipeline_type": kind,
            "resolution": round(1 / mesh.voxel_size),
            "model": self.model,
        }
        clock.monitor.report("state", 0, 1)
        with clock.stage("state"):
            kept = variant.shape if settings.keep_latents else None
            state = states.from_mesh(mesh, info, kept)
            data = states.compress_state(pack_state(state, self._lossless))
            self._recent.hold(data, state, exact=self._lossless)
            files = {"state": JobFile(data, STATE_MEDIA_TYPE)}
        stats: dict[str, Any] = {
            "seed": variant.seed,
            "resolution": info["resolution"],
            "voxels": len(mesh.coords),
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
            "state_bytes": len(files["state"].data),
        }
        if settings.preview == "frames" and len(settings.seeds) == 1 and (light := self._light(mesh, clock)):
            files["light"] = light
            if clock.early is not None:
                clock.early("light", light)
        self.add_previews(files, stats, mesh, settings.preview, clock.monitor, kind)
        return files, stats

    def _light(self, mesh: Any, clock: StageClock) -> JobFile | None:
        """The mesh to look at while the turntable is rendered; none where it cannot be made."""
        settings = ExtractSettings.model_validate(LIGHT_SETTINGS)
        outer = clock.monitor
        monitor = Monitor(lambda p: outer.report("light", p.step, p.steps), outer.cancel)
        outer.report("light", 0, 1)
        try:
            data, _ = self.guarded(lambda: self.exporter.asset(mesh, settings, monitor), None)
        except (Cancelled, DeviceLostError):
            raise
        except Exception:  # the asset itself is there, and can be exported with other settings
            logger.exception("no light mesh")
            return None
        return JobFile(data, ASSET_MEDIA_TYPES["glb"])

    def _kept_shape(self, payload: bytes, clock: StageClock) -> Any:
        """The shape that a job is to keep, of the state beside its pictures; None without one."""
        state = unpack_inputs(payload).state
        if state is None:
            return None
        with clock.stage("state"):
            return states.kept_shape(states.decompress_state(state), self.model)[0]

    def texture(self, inputs: bytes, settings: TextureSettings, monitor: Monitor) -> JobOutput:
        """The mesh in the inputs (see `pack_inputs`) with the textures that its pictures show, and its
        preview.

        Raises as `generate`, and `InvalidMeshError`.
        """
        return texture_mesh(self, inputs, settings, monitor)

    def add_previews(
        self,
        files: dict[str, JobFile],
        stats: dict[str, Any],
        mesh: Any,
        preview: str,
        monitor: Monitor,
        kind: str,
    ) -> None:
        """The video and the stills that a job asks for."""
        if preview != "none":
            files["video"] = self.guarded(lambda: self.render_preview_video(mesh, monitor), kind)
        if preview == "frames":
            files["preview"], layout = self.guarded(lambda: self.exporter.sheet(mesh, monitor), kind)
            stats["preview"] = layout

    def render_preview_video(self, mesh: Any, monitor: Monitor | None = None) -> JobFile:
        """A turntable of a decoded asset as a video."""
        return self.exporter.video(mesh, monitor or Monitor())

    def extract_glb(self, state: bytes, settings: ExtractSettings, monitor: Monitor) -> JobOutput:
        """The file (GLB or another format) of a compressed state, with the mesh report in `stats`."""
        clock = StageClock(monitor)
        monitor.report("state", 0, 1)
        settings = settings.resolved()
        with clock.stage("state"):
            mesh = states.to_mesh(self._recent.unpacked(state), self.device)

        def export() -> tuple[bytes, dict[str, Any]]:
            return self.exporter.asset(mesh, settings, clock.monitor)

        data, report = self.guarded(export, None)
        stats = {"report": report, "bytes": len(data), "seconds": clock.seconds()}
        stats["warnings"] = [{"code": "asset", "message": note} for note in report.get("notes", ())]
        return JobOutput({"glb": JobFile(data, ASSET_MEDIA_TYPES[settings.format])}, stats=stats)

    def _run_pipeline(
        self,
        picture: bytes,
        settings: GenerateSettings,
        kind: str,
        shape: Any,
        monitor: Monitor,
        warnings: list[dict[str, str]],
        passes: dict[str, Any],
    ) -> Iterable[Any]:
        passes.clear()
        warnings.clear()  # of a first try that ran out of memory
        images, preprocess = opened(unpack_inputs(picture).pictures, settings.remove_background)
        return self.pipeline.variants(
            images[0] if len(images) == 1 else images,
            list(settings.seeds),
            shape=shape,
            pipeline_type=kind,
            preprocess_image=preprocess,
            subjects=settings.subjects,
            texture=settings.texture,
            quality=settings.quality,
            notice=lambda found: warnings.append(dataclasses.asdict(found)),
            progress=monitor.progress,
            cancel=monitor.cancel,
            passes=passes,
            cameras=settings.views,
            fov="estimate" if settings.estimate_fov and settings.fov is None else settings.fov,
            view_mode=settings.view_mode,
            **settings.sampler_params(),
        )

    # --- failures ----------------------------------------------------------------------------------------

    def guarded(self, call: Callable[[], T], kind: str | None) -> T:
        """Run `call`; out of memory is tried once more in low-VRAM mode, other failures become typed.

        The mode is for the retry alone: the next job has the whole speed again.
        """
        before = [(part, part.low_vram) for part in self._parts]
        try:
            return self._tried_twice(call, kind)
        finally:
            for part, staged in before:
                if part.low_vram != staged:
                    part.low_vram = staged

    def _tried_twice(self, call: Callable[[], T], kind: str | None) -> T:
        for last in (False, True):
            error_text = ""
            try:
                return call()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise translate(error) from error
                error_text = str(error).splitlines()[0] if str(error) else type(error).__name__
            # here the exception and the tensors in its frames are gone, so the cache can really be freed
            logger.warning("out of memory (%s)%s", error_text, "" if last else "; trying in low-VRAM mode")
            for part in self._parts:
                part.low_vram = True
            self.free_memory()
        raise self._out_of_memory(kind)

    def free_memory(self) -> None:
        """Give unused accelerator memory back."""
        gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _out_of_memory(self, kind: str | None) -> errors.OutOfMemoryError:
        if kind is None:
            return errors.OutOfMemoryError(
                "the extraction does not fit; try a texture_size of 1024 and remesh false",
                hints={"suggested": {"texture_size": 1024, "remesh": False}},
            )
        smaller = [name for name in self.pipeline_types if _order(name) < _order(kind)]
        if not smaller:
            return errors.OutOfMemoryError(f"even {kind}, the smallest setting, does not fit this device")
        return errors.OutOfMemoryError(
            f"{kind} does not fit; try pipeline_type {smaller[-1]}",
            hints={"suggested": {"pipeline_type": smaller[-1]}},
        )


def _order(pipeline_type: str) -> int:
    return [str(name) for name in PIPELINE_TYPES].index(pipeline_type)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed for want of memory, on a device or on the host."""
    if isinstance(error, errors.ServiceError):
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def is_device_lost(error: BaseException) -> bool:
    """Whether the accelerator's context is poisoned: every later call in this process would fail too."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


def translate(error: Exception) -> Exception:
    """The error that the caller should see for one that the model's packages raised."""
    from o_voxel import errors as geometry

    from trellis2 import errors as model

    if isinstance(error, (errors.ServiceError, Cancelled, DeviceLostError)):
        return error
    if is_device_lost(error):
        return DeviceLostError(str(error))
    table: Sequence[tuple[type[Exception], Callable[[], Exception]]] = (
        (
            model.InvalidImageError,
            lambda: errors.InvalidImageError(str(error), errors=[errors.FieldError("image", str(error))]),
        ),
        (model.UnsupportedPipelineError, lambda: errors.UnsupportedPipelineError(str(error))),
        (model.EmptyStructureError, lambda: errors.EmptyResultError(f"{error}; try another seed or picture")),
        (model.BackendError, lambda: errors.InvalidRequestError(str(error))),
        (model.InvalidArgumentError, lambda: errors.InvalidRequestError(str(error))),
        (geometry.ArgumentError, lambda: errors.InvalidRequestError(str(error))),
        (geometry.MeshError, lambda: errors.InvalidStateError(str(error))),
    )
    for kind, make in table:
        if isinstance(error, kind):
            return make()
    return error


def create(weights: str, device: str = "auto", lossless_state: bool = False) -> TRELLIS2Generator:
    """The factory that a local worker calls: weights from a folder, a known model or a hub repo, moved to
    `device`.
    """

    def factory() -> Pipeline:
        from trellis2.pipelines import Trellis2ImageTo3DPipeline

        known = KNOWN_MODELS.get(weights)
        if known is None or Path(weights).exists():
            pipeline: Pipeline = Trellis2ImageTo3DPipeline.from_pretrained(weights, device="cpu")
            return pipeline
        upsampler = (
            fetch_upsampler(default_data_dir() / "weights", HuggingFaceHub()) if known.upsampler else None
        )
        pipeline = Trellis2ImageTo3DPipeline.from_pretrained(
            known.repo,
            config_file=known.config_file,
            revision=known.revision,
            device="cpu",
            feature_upsampler=upsampler,
        )
        return pipeline

    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = Path(weights).name if Path(weights).exists() else weights
    known = KNOWN_MODELS.get(weights)
    path, revision = (
        (weights, None) if known is None or Path(weights).exists() else (known.repo, known.revision)
    )
    generator = TRELLIS2Generator(
        factory,
        model=name,
        device=device,
        lossless_state=lossless_state,
        texturing=lambda pipeline: texturing_of(pipeline, path, revision),
    )
    generator.load_model_cpu()
    if device != "cpu":
        generator.move_model_gpu(device)
    return generator
