"""How long a job will take, by what the last jobs of its kind took on the same weights and device.

A job's stages count as they were measured, those of the samplers in proportion to their steps, and all
but the picture's in proportion to the variants. What a request leaves out (texture, preview) is left out
of the estimate. Nothing is estimated that was never measured.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..protocol.requests import GenerateSettings, JobKind
from ..protocol.stages import EXPORT_STAGES
from .job import Job

REMEMBERED = 256
COMPARED = 20
"""The most measured jobs behind one estimate: the latest."""

STEPS = {
    "sparse_structure": "ss_sampling_steps",
    "shape": "shape_slat_sampling_steps",
    "shape_fine": "shape_slat_sampling_steps",
    "texture": "tex_slat_sampling_steps",
}
"""Stages whose time grows with a setting."""

ALIKE: Mapping[JobKind, tuple[tuple[str, ...], ...]] = {
    "generate": (("pipeline_type", "quality", "view_mode"), ("pipeline_type", "quality")),
    "texture": (("pipeline_type", "quality", "texture_size"), ("pipeline_type",)),
    "extract": (("decimation_target", "texture_size", "remesh", "format"), ("decimation_target",), ()),
}
"""By kind the settings in which a measured job must agree; where none does, the next of them."""

SHARED = ("image", "condition")
"""Stages that several variants go through once."""

Seconds = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """What one kind of job takes: the median, the least and the most of `jobs` measured ones, in seconds."""

    seconds: float
    low: float
    high: float
    stages: Seconds
    jobs: int


@dataclass
class Measurements:
    """The latest finished jobs of this service."""

    _jobs: deque[Job] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def add(self, jobs: Iterable[Job]) -> None:
        """Take note of jobs, oldest first; those that did not run through at once say nothing."""
        self._jobs.extend(job for job in jobs if job.result is not None and job.attempt <= 1)

    def estimate(
        self,
        kind: JobKind,
        settings: Mapping[str, Any],
        place: Mapping[str, Any],
        samplers: Mapping[str, float],
    ) -> Measured | None:
        """None where nothing like it was measured. `place` are the stats that a comparable job has: the
        model and the device; `samplers` the weights' own settings.
        """
        known = [
            job for job in reversed(self._jobs) if job.kind == kind and place.items() <= _stats(job).items()
        ]
        for names in ALIKE.get(kind, ((),)):
            alike = [job for job in known if all(job.settings.get(n) == settings.get(n) for n in names)]
            found = [taken for job in alike if (taken := _taken(job, settings, samplers)) is not None]
            if found:
                return _summary(found[:COMPARED])
        return None


def _stats(job: Job) -> dict[str, Any]:
    stats = (job.result or {}).get("stats")
    return stats if isinstance(stats, dict) else {}


def _taken(job: Job, settings: Mapping[str, Any], samplers: Mapping[str, float]) -> Seconds | None:
    """Seconds by stage that a job with `settings` would have taken in the place of `job`, what is between
    stages under ""; None when it lacks a stage that `settings` ask for.
    """
    stages = _stats(job).get("seconds")
    measured: Seconds = dict(stages) if isinstance(stages, dict) else {}
    rest = max(0.0, job.seconds - sum(measured.values()))
    for stage, wanted in _switched(settings).items():
        if not wanted:
            measured.pop(stage, None)
        elif stage not in measured and not _switched(job.settings).get(stage, True):
            return None
    told = _stats(job).get("samplers")
    own = told if isinstance(told, dict) else {}
    for stage, name in STEPS.items():
        if stage in measured and settings.get(name) != job.settings.get(name):
            # A cascade's second pass may have had steps of its own, which its stats tell.
            before = own.get(stage, {}).get("steps") or _steps(name, job.settings, samplers)
            measured[stage] *= _steps(name, settings, samplers) / before
    more = settings.get("num_samples", 1) / job.settings.get("num_samples", 1)
    measured = {stage: s if stage in SHARED else s * more for stage, s in measured.items()}
    return measured | {"": rest}


def _switched(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Stages that a setting switches on or off."""
    texture, preview = settings.get("texture", True), settings.get("preview", "none")
    return {
        "texture": texture,
        "decode_texture": texture,
        "light": preview == "frames" and settings.get("num_samples", 1) == 1,
        "preview": preview != "none",
        "stills": preview == "frames",
    } | (dict.fromkeys(EXPORT_STAGES, settings.get("export") is not None) if "texture" in settings else {})


def _steps(name: str, settings: Mapping[str, Any], samplers: Mapping[str, float]) -> float:
    default = GenerateSettings.model_fields[name].default
    return float(settings.get(name) or samplers.get(name) or default)


def _summary(found: list[Seconds]) -> Measured:
    totals = [sum(seconds.values()) for seconds in found]
    names = dict.fromkeys(name for seconds in found for name in seconds if name)
    stages = {n: round(statistics.median(s[n] for s in found if n in s), 3) for n in names}
    total, low, high = (round(f(totals), 3) for f in (statistics.median, min, max))
    return Measured(total, low, high, stages, len(found))
