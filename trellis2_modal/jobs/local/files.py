"""The files of jobs on this machine: an input while a job waits and runs, a result folder when it is done."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from pathlib import Path

from pydantic import TypeAdapter

from ...durable import sync_folder, write_atomically
from ...protocol.errors import StorageFullError, UnavailableError, in_one_line
from ...protocol.replies import ASSET_MEDIA_TYPES, JobResult
from ..job import Job, Seconds
from ..ports import Artifact, Published
from ..worker import EARLY, RESULT_FILE

logger = logging.getLogger(__name__)

RETRY_AFTER = 300.0
EARLY_FILES = {"light": ASSET_MEDIA_TYPES["glb"]}
SECONDS: TypeAdapter[float] = TypeAdapter(Seconds)


class JobFiles:
    """See `ports.Artifacts`: a folder a job under `root`.

    A result without a job (its row was damaged) stays for `retention` seconds, as others do.
    """

    def __init__(self, root: Path, min_free_bytes: int, retention: float) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._retention = retention

    def folder(self, job_id: str) -> Path:
        return self._root / job_id

    def input(self, job_id: str) -> Path:
        """The picture or the state that was sent."""
        return self.folder(job_id) / "input"

    def result(self, job_id: str, name: str) -> Path:
        """An artifact; it exists if the job published one of that name."""
        return self.folder(job_id) / "result" / name

    async def keep_input(self, job_id: str, payload: bytes | None) -> None:
        """Write what was sent, whole or not at all; it is on the disk when this returns."""
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
                write_atomically(self.input(job_id), payload)
            sync_folder(self._root)
        except OSError as error:
            self._remove(job_id)
            raise StorageFullError(
                "the job could not be stored; try later", retry_after=RETRY_AFTER
            ) from error

    async def published(self, job: Job) -> Published | None:
        return await asyncio.to_thread(self._published, job.id)

    def _published(self, job_id: str) -> Published | None:
        """A damaged result is reported and removed, so that the job can run again."""
        try:
            document = json.loads(self.result(job_id, RESULT_FILE).read_bytes())
            for name, entry in document["artifacts"].items():
                entry["url"] = f"/jobs/{job_id}/{name}"
            result = JobResult.model_validate(document)
            for name, link in result.artifacts.items():
                if self.result(job_id, name).stat().st_size != link.bytes:
                    raise ValueError(f"{name} has not the {link.bytes} bytes that were written")
            return Published(result.model_dump(mode="json"), SECONDS.validate_python(document["seconds"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FileNotFoundError) as error:
            if self.folder(job_id).joinpath("result").exists():
                reason = in_one_line(error)
                logger.error("the result of job %s is damaged and was removed: %s", job_id, reason)
                shutil.rmtree(self.folder(job_id) / "result", ignore_errors=True)
            return None
        except OSError as error:
            raise UnavailableError(f"a result cannot be read now: {error.strerror}", retry_after=5) from error

    async def read(self, job: Job, name: str) -> Artifact | None:
        link = JobResult.model_validate(job.result).artifacts.get(name)
        path = self.result(job.id, name)
        if link is None or await asyncio.to_thread(_size, path) != link.bytes:
            return None
        return Artifact(name, link.media_type, link.bytes, etag=f"{job.id}-{name}", path=path)

    async def early(self, job: Job, name: str) -> Artifact | None:
        path = self.folder(job.id) / EARLY / name
        size = await asyncio.to_thread(_size, path) if name in EARLY_FILES else -1
        if size < 0:
            return None
        return Artifact(name, EARLY_FILES[name], size, etag=f"{job.id}-early-{name}", path=path)

    async def drop_input(self, job_id: str) -> None:
        await asyncio.to_thread(self._drop_input, job_id)

    def _drop_input(self, job_id: str) -> None:
        """All but the result: a kill may have left half an input, or half a result."""
        folder = self.folder(job_id)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name == "result":
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    async def discard(self, job_id: str) -> None:
        await asyncio.to_thread(self._remove, job_id)

    def _remove(self, job_id: str) -> None:
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    async def tidy(self, known: set[str], age: float) -> None:
        await asyncio.to_thread(self._tidy, known, age)

    def _tidy(self, known: set[str], age: float) -> None:
        """What a kill leaves: between an input and its job, between the end of a job and tidying up."""
        if not self._root.exists():
            return
        for name in os.listdir(self._root):
            folder = self.folder(name)
            try:
                has_result = (folder / "result").exists()
                old = time.time() - folder.stat().st_mtime
                if name not in known and old >= (self._retention if has_result else age):
                    self._remove(name)
                elif has_result and old >= age:
                    self._drop_input(name)
            except OSError as error:
                logger.warning("%s cannot be tidied: %s", folder, error.strerror)


def _size(path: Path) -> int:
    """-1 for no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
