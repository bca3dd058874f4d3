"""The files of jobs on this machine: an input while a job waits and runs, a result folder when it is done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ..protocol.errors import StorageFullError
from .worker import RESULT_FILE

RETRY_AFTER = 300.0


class JobFiles:
    """A folder a job under `root`. Calls are short and blocking."""

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

    def store_input(self, job_id: str, payload: bytes | None) -> None:
        """Write what was sent, whole or not at all; raises `StorageFullError`."""
        folder = self.folder(job_id)
        try:
            folder.mkdir(parents=True)
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
            self.remove(job_id)
            raise StorageFullError(
                "the job could not be stored; try later", retry_after=RETRY_AFTER
            ) from error

    def published(self, job_id: str) -> dict[str, Any] | None:
        """What a worker published: seed, stats, artifacts with their addresses; None for nothing."""
        path = self.result(job_id, RESULT_FILE)
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        for name, entry in document["artifacts"].items():
            entry["url"] = f"/jobs/{job_id}/{name}"
        return document

    def drop_input(self, job_id: str) -> None:
        self.input(job_id).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def remove_strays(self, known: set[str], before: float) -> None:
        """Folders without a job: of a server killed between storing an input and accepting its job."""
        strays = set(os.listdir(self._root)) - known if self._root.exists() else set()
        for name in strays:
            if self.folder(name).stat().st_mtime < before:
                self.remove(name)
