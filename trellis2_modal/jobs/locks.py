"""A lock that the operating system releases when its holder dies, however it dies."""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

POLL = 0.05
LOCKED_BYTE = 1 << 20
"""On Windows a locked byte cannot be read by others: lock one beyond the text."""


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone can enter, or make it so; what the process writes is private too.

    A folder that everybody may write to, such as /tmp, stays as it is.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.stat().st_mode & stat.S_ISVTX:
        os.chmod(path, 0o700)
    os.umask(0o077)


class FileLock:
    """An exclusive lock on a file, waited for at most `timeout` seconds; raises TimeoutError."""

    def __init__(self, path: Path, timeout: float = 0.0) -> None:
        self._path = path
        self._timeout = timeout
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock, unless this object has it already."""
        if self._handle is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + self._timeout
        if not _try_lock(handle):
            logger.info("waiting for %s, held by process %s", self._path, _holder(handle))
            while not _try_lock(handle):
                if time.monotonic() >= deadline:
                    holder = _holder(handle)
                    os.close(handle)
                    raise TimeoutError(f"{self._path} is held by process {holder}")
                time.sleep(POLL)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"{os.getpid()}\n".encode())  # for an operator who asks who holds it
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)  # closing releases
            self._handle = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder_of(path: Path) -> int | None:
    """The process that holds the lock on this file now; None when nobody does."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _try_lock(handle) else int(_holder(handle))
    except ValueError:  # it has the lock and has not written yet who it is
        return None
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    """What the holder wrote: its process id."""
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, 20).decode("ascii", "replace").strip() or "unknown"


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
