"""The files of jobs on this machine: an input while a job waits and runs, a result folder when it is done."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from pathlib import Path

from ...protocol.errors import StorageFullError
from ...protocol.replies import JobResult
from ..job import Job
from ..ports import Artifact, Published
from ..worker import RESULT_FILE

logger = logging.getLogger(__name__)

RETRY_AFTER = 300.0
STRAY_AGE = 3600.0


class JobFiles:
    """See `ports.Artifacts`: a folder a job under `root`."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

    def folder(self, job_id: str) -> Path:
        return self._root / job_id

    def input(self, job_id: str) -> Path:
        """The picture or the state that was sent."""
        return self.folder(job_id) / "input"

    def result(self, job_id: str, name: str) -> Path:
        """An artifact; it exists if the job published one of that name."""
        return self.folder(job_id) / "result" / name

    async def keep_input(self, job_id: str, payload: bytes | None) -> None:
        """Write what was sent, whole or not at all."""
        await asyncio.to_thread(self._keep_input, job_id, payload)

    def _keep_input(self, job_id: str, payload: bytes | None) -> None:
        folder = self.folder(job_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < self._min_free_bytes + len(payload or b""):
                folder.rmdir()
                raise StorageFullError(
                    f"{free >> 20} MiB of disk are left; try later", retry_after=RETRY_AFTER
                )
            if payload is not None:
                partial = folder / "input.part"
                partial.write_bytes(payload)
                os.replace(partial, self.input(job_id))
        except OSError as error:
            self._remove(job_id)
            raise StorageFullError(
                "the job could not be stored; try later", retry_after=RETRY_AFTER
            ) from error

    async def published(self, job: Job) -> Published | None:
        return await asyncio.to_thread(self._published, job.id)

    def _published(self, job_id: str) -> Published | None:
        path = self.result(job_id, RESULT_FILE)
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_text())
            for name, entry in document["artifacts"].items():
                entry["url"] = f"/jobs/{job_id}/{name}"
            result = JobResult.model_validate(document).model_dump(mode="json")
            return Published(result, float(document["seconds"]))
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            logger.error("the result of job %s cannot be read: %s", job_id, str(error).splitlines()[0])
            return None

    async def read(self, job: Job, name: str) -> Artifact | None:
        entry = JobResult.model_validate(job.result).artifacts.get(name)
        path = self.result(job.id, name)
        if entry is None or not await asyncio.to_thread(path.exists):
            return None
        return Artifact(name, entry.media_type, entry.bytes, etag=f"{job.id}-{name}", path=path)

    async def drop_input(self, job_id: str) -> None:
        await asyncio.to_thread(self.input(job_id).unlink, missing_ok=True)

    async def discard(self, job_id: str) -> None:
        await asyncio.to_thread(self._remove, job_id)

    def _remove(self, job_id: str) -> None:
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    async def tidy(self, known: set[str]) -> None:
        """Remove old folders without a job: of a server killed between storing an input and its job."""
        await asyncio.to_thread(self._tidy, known, time.time() - STRAY_AGE)

    def _tidy(self, known: set[str], before: float) -> None:
        strays = set(os.listdir(self._root)) - known if self._root.exists() else set()
        for name in strays:
            if self.folder(name).stat().st_mtime < before:
                self._remove(name)
