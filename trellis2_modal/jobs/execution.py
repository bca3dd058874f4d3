"""What a worker does with a job, whatever the model: the call, its callbacks and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from trellis2.progress import Monitor

from ..protocol.replies import artifact_of
from ..protocol.requests import ExtractSettings, GenerateSettings, JobKind, TextureSettings

GROWTH = 0.01


class DeviceLostError(Exception):
    """The accelerator's context is unusable: the process that holds it has to end."""


class Thinning:
    """Which progress is worth keeping: the first and last step of each stage, others once an interval.

    The interval grows by `GROWTH` of the running time, so that the events of an hour stay few.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._stage: str | None = None
        self._began = self._last = time.monotonic()

    def worth_keeping(self, stage: str, step: int, steps: int) -> bool:
        now = time.monotonic()
        interval = max(self._interval, (now - self._began) * GROWTH)
        if stage == self._stage and step < steps and now - self._last < interval:
            return False
        self._stage, self._last = stage, now
        return True


@dataclass(frozen=True)
class JobFile:
    """One artifact of a job."""

    data: bytes
    media_type: str


@dataclass(frozen=True)
class JobOutput:
    """What a job leaves: files by artifact name (state, video, preview, glb), and numbers about it."""

    files: dict[str, JobFile]
    seed: int | None = None
    resolution: int | None = None
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobMonitor(Monitor):
    """Of a job whose worker can hand a file over before the job ends: `early` takes its name and the file."""

    early: Callable[[str, JobFile], None] | None = None


class Generator(Protocol):
    """The model as a worker sees it. Raises `ServiceError`, `Cancelled` or `DeviceLostError`."""

    model: str
    device: str
    pipeline_types: tuple[str, ...]
    texture_types: tuple[str, ...]
    default_type: str
    samplers: dict[str, float]
    views: dict[str, Any]

    @property
    def backends(self) -> dict[str, str]:
        """The implementation of each operation, and why it was chosen."""

    def generate(self, picture: bytes, settings: GenerateSettings, monitor: Monitor) -> JobOutput: ...

    def texture(self, inputs: bytes, settings: TextureSettings, monitor: Monitor) -> JobOutput: ...

    def extract_glb(self, state: bytes, settings: ExtractSettings, monitor: Monitor) -> JobOutput: ...


def run_job(
    generator: Generator, kind: JobKind, settings: dict[str, Any], payload: bytes, monitor: Monitor
) -> JobOutput:
    """Run a job of any kind on its payload: what `pack_inputs` made, or the compressed state."""
    if kind == "generate":
        asked = GenerateSettings.model_validate(settings)
        made = generator.generate(payload, asked, monitor)
        return made if asked.export is None else _exported(generator, made, asked.export, monitor)
    if kind == "texture":
        return generator.texture(payload, TextureSettings.model_validate(settings), monitor)
    return generator.extract_glb(payload, ExtractSettings.model_validate(settings), monitor)


def _exported(
    generator: Generator, made: JobOutput, settings: ExtractSettings, monitor: Monitor
) -> JobOutput:
    """A generation with its file: the stats of both, those of the mesh report under `report`."""
    state = made.files[artifact_of("state", settings.variant)].data
    file = generator.extract_glb(state, settings, monitor)
    stats = file.stats | made.stats
    stats["seconds"] = made.stats.get("seconds", {}) | {
        name: seconds + made.stats.get("seconds", {}).get(name, 0.0)
        for name, seconds in file.stats.get("seconds", {}).items()
    }
    stats["warnings"] = [*made.stats.get("warnings", ()), *file.stats.get("warnings", ())]
    return replace(made, files=made.files | file.files, stats=stats)
