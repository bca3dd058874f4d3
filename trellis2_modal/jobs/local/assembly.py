"""The job engine of one machine."""

from __future__ import annotations

from pathlib import Path

from ...running import LOCK
from ..engine import Engine
from ..locks import FileLock
from ..settings import JobSettings
from ..worker_process import WorkerSpec
from .files import JobFiles
from .runner import WorkerRunner
from .table import SqliteTable

SERVER_LOCK_TIMEOUT = 15.0


def folder_lock(data_dir: Path) -> FileLock:
    """One server a data folder. Waits for one that is stopping; raises TimeoutError when it does not."""
    return FileLock(data_dir / LOCK, timeout=SERVER_LOCK_TIMEOUT)


def local_engine(
    spec: WorkerSpec, settings: JobSettings, data_dir: Path, lock: FileLock | None = None
) -> Engine:
    files = JobFiles(data_dir / "jobs", settings.min_free_bytes, settings.retention)
    table = SqliteTable(data_dir / "jobs.sqlite", lock or folder_lock(data_dir))
    return Engine(table, WorkerRunner(spec, files, settings, data_dir), files, settings)
