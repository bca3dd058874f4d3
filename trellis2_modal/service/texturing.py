"""New textures for a mesh: the job `texture`, beside `TRELLIS2Generator` which owns the models."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trellis2.progress import Monitor

from ..jobs.execution import JobFile, JobOutput
from ..protocol import errors
from ..protocol.limits import MAX_MESH_FACES
from ..protocol.meshes import mesh_kind
from ..protocol.replies import ASSET_MEDIA_TYPES
from ..protocol.requests import TextureSettings, default_texture_type
from ..protocol.views import unpack_inputs
from .inputs import mesh_errors, opened
from .stage_clock import StageClock

if TYPE_CHECKING:
    from .generator import TRELLIS2Generator

logger = logging.getLogger(__name__)


class Painter(Protocol):
    """The part of `Trellis2TexturingPipeline` that is used here."""

    low_vram: bool
    pbr_attr_layout: Any

    @property
    def paint(self) -> Callable[..., Any]: ...

    @property
    def available_resolutions(self) -> list[int]: ...

    def to(self, device: str) -> Any: ...


def texturing_of(pipeline: Any, path: Any, revision: str | None = None) -> Painter | None:
    """The texturing pipeline of the weights at `path` beside the loaded one; None where they have none."""
    from trellis2.errors import CheckpointError
    from trellis2.pipelines import Trellis2TexturingPipeline

    try:
        return Trellis2TexturingPipeline.beside(pipeline, path, revision=revision)
    except CheckpointError as error:
        logger.warning("these weights cannot texture meshes: %s", error)
        return None


def texture_mesh(
    generator: TRELLIS2Generator, inputs: bytes, settings: TextureSettings, monitor: Monitor
) -> JobOutput:
    """See `TRELLIS2Generator.texture`."""
    from o_voxel.retexture import read_mesh

    from trellis2.errors import InvalidArgumentError
    from trellis2.pipelines.texturing import UnitCube

    given = unpack_inputs(inputs)
    kind = settings.pipeline_type or default_texture_type(
        generator.texture_types or ("",), generator.default_type
    )
    painter = generator.painter
    if painter is None or kind not in generator.texture_types:
        offered = ", ".join(generator.texture_types) or "no resolution"
        raise errors.UnsupportedPipelineError(
            f"the loaded weights texture meshes at {offered}, not at {kind}"
        )
    resolution, clock = int(kind), StageClock(monitor)
    warnings: list[dict[str, str]] = []
    passes: dict[str, Any] = {}
    data = given.mesh or b""
    monitor.report("encode_shape", 0, 1)
    with clock.stage("encode_shape"), mesh_errors(InvalidArgumentError):
        mesh = read_mesh(data, mesh_kind(data), MAX_MESH_FACES)
        place = UnitCube(mesh.vertices, mesh.faces)
        if not settings.new_uvs:
            mesh.check_uvs()  # before the work, not after it

    def paint() -> Any:
        passes.clear()
        warnings.clear()  # of a first try that ran out of memory
        with mesh_errors():
            return _paint(
                painter, mesh, place, given.pictures, settings, resolution, clock.monitor, warnings, passes
            )

    def bake() -> tuple[bytes, dict[str, Any], Any]:
        with mesh_errors():
            return generator.exporter.textured(mesh, place, voxels, resolution, settings, clock.monitor)

    voxels = generator.guarded(paint, kind)
    asset, report, shown = generator.guarded(bake, kind)
    files = {"glb": JobFile(asset, ASSET_MEDIA_TYPES["glb"])}
    stats: dict[str, Any] = {
        "voxels": len(voxels.coords),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "bytes": len(asset),
        "report": report,
        "passes": {stage: dataclasses.asdict(counted) for stage, counted in passes.items()},
    }
    generator.add_previews(files, stats, shown, settings.preview, clock.monitor, kind)
    stats["warnings"] = warnings + [{"code": "asset", "message": note} for note in report.get("notes", ())]
    stats["seconds"] = clock.seconds()
    return JobOutput(files, settings.seed, resolution, stats)


def _paint(
    painter: Painter,
    mesh: Any,
    place: Any,
    pictures: Sequence[bytes],
    settings: TextureSettings,
    resolution: int,
    monitor: Monitor,
    warnings: list[dict[str, str]],
    passes: dict[str, Any],
) -> Any:
    images, preprocess = opened(pictures, settings.remove_background)
    return painter.paint(
        place(mesh.vertices),
        mesh.faces,
        images,
        seed=settings.seed,
        tex_slat_sampler_params=settings.sampler_params(),
        preprocess_image=preprocess,
        resolution=resolution,
        subjects=settings.subjects,
        view_mode=settings.view_mode,
        quality=settings.quality,
        passes=passes,
        notice=lambda found: warnings.append(dataclasses.asdict(found)),
        progress=monitor.progress,
        cancel=monitor.cancel,
    )
