"""Jobs that run nothing: what a key with the scope `dry-run` gets, for the tests of integrations.

The same engine over a table in memory and a runner that is done at once. Requests are checked as those of
other keys are; every result is the small asset in `canned/`. No job is counted, stored, or seen by others.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..jobs.engine import Engine
from ..jobs.job import Event, Job
from ..jobs.memory import MemoryTable
from ..jobs.ports import Artifact, Capabilities, Published, Run
from ..protocol.replies import ASSET_MEDIA_TYPES, STATE_MEDIA_TYPE, JobResult, ProgressReport, artifact_of
from .config import Settings

FOLDER = Path(__file__).with_name("canned")
KEPT = 600.0
"""Seconds that such a job is remembered."""

MEDIA_TYPES = {"state": STATE_MEDIA_TYPE, "video": "video/mp4", "preview": "image/webp"}
NOTICE = {"code": "dry_run", "message": "nothing was generated: this is the canned asset of a dry-run key"}


@lru_cache
def canned(name: str) -> bytes:
    """A file of the asset: state, video, preview, or a format."""
    return (FOLDER / f"asset.{name}").read_bytes()


def canned_picture(prompt: str, seed: int) -> bytes:
    """What stands in for the picture of a prompt (see `http.pictures.sources.Draw`)."""
    return canned("preview")


@lru_cache
def facts() -> dict[str, Any]:
    """Resolution, layout of the stills, and mesh report by format."""
    found: dict[str, Any] = json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))
    return found


def files_of(job: Job) -> dict[str, tuple[str, str]]:
    """The job's files: the canned file and media type of each artifact."""
    if job.kind == "extract":
        kind = str(job.settings.get("format", "glb"))
        return {"glb": (kind, ASSET_MEDIA_TYPES[kind])}
    wanted = {"none": (), "video": ("video",)}
    names: tuple[str, ...] = wanted.get(job.settings.get("preview", "video"), ("video", "preview"))
    if job.kind == "texture":
        return {"glb": ("glb", ASSET_MEDIA_TYPES["glb"])} | {
            name: (name, MEDIA_TYPES[name]) for name in names
        }
    return {
        artifact_of(name, number): (name, MEDIA_TYPES[name])
        for number in range(1, job.settings.get("num_samples", 1) + 1)
        for name in ("state", *names)
    }


class CannedArtifacts:
    """See `jobs.ports.Artifacts`."""

    async def keep_input(self, job_id: str, payload: bytes | None) -> None: ...

    async def published(self, job: Job) -> Published | None:
        generated = job.kind != "extract"
        stats: dict[str, Any] = {"warnings": [NOTICE], "seconds": {}, "dry_run": True}
        if job.kind != "generate":
            stats["report"] = facts()["reports"][job.settings.get("format", "glb")]
        elif (count := job.settings.get("num_samples", 1)) > 1:
            stats["variants"] = [{"seed": job.settings["seed"] + n} for n in range(count)]
        if generated and job.settings.get("preview") == "frames":
            stats["preview"] = facts()["preview"]
        document = {
            "seed": job.settings.get("seed") if generated else None,
            "resolution": facts()["resolution"] if generated else None,
            "stats": stats,
            "artifacts": {
                name: {"url": f"/jobs/{job.id}/{name}", "media_type": media, "bytes": len(canned(file))}
                for name, (file, media) in files_of(job).items()
            },
        }
        return Published(JobResult.model_validate(document).model_dump(mode="json"), 0.0)

    async def read(self, job: Job, name: str) -> Artifact | None:
        found = files_of(job).get(name)
        if found is None:
            return None
        data = canned(found[0])
        return Artifact(name, found[1], len(data), etag=f"{job.id}-{name}", data=data)

    async def early(self, job: Job, name: str) -> Artifact | None:
        return None

    async def drop_input(self, job_id: str) -> None: ...

    async def discard(self, job_id: str) -> None: ...

    async def tidy(self, known: set[str], age: float) -> None: ...


class DryRunner:
    """See `jobs.ports.Runner`: offers what the real one offers, and is done with a job when it is asked."""

    eager = False
    restarts = 0

    def __init__(self, offered: Callable[[], Capabilities]) -> None:
        self._offered = offered
        self._wake: Callable[[], None] = lambda: None

    def capabilities(self) -> Capabilities:
        return dataclasses.replace(self._offered(), device="none")

    def idle(self) -> bool:
        return True

    async def open(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    async def close(self) -> None: ...

    async def start(self, job: Job, source: Job | None) -> str:
        self._wake()
        return "dry-run"

    async def poll(self, job: Job) -> tuple[Run, list[Event]]:
        stage = "bake" if job.kind == "extract" else "shape"
        done = ProgressReport(stage=stage, step=1, steps=1)
        return Run("finished", job.attempt, job.started, 0.0, done), [Event.of(time.time(), done)]

    async def cancel(self, job: Job) -> None: ...


def dry_engine(real: Engine, settings: Settings) -> Engine:
    """The engine of keys that may only rehearse."""
    short = dataclasses.replace(
        settings, retention=KEPT, row_retention=KEPT, shutdown_grace=0.0, gpu_price_per_hour=0.0
    )
    return Engine(MemoryTable(), DryRunner(real.capabilities), CannedArtifacts(), short)
