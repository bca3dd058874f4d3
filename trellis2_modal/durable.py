"""Files that are on the disk, whole, when the call returns: a power cut undoes nothing that was announced."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import threading
from pathlib import Path

_UMASK = threading.Lock()
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}
"""What file systems answer that cannot sync a folder, and folders that only take files."""


def write_atomically(path: str | os.PathLike[str], data: bytes, mode: int | None = None) -> Path:
    """Write a file so that a crash or a full disk leaves the old one; raises OSError.

    A link is followed; a pipe or a device is written to, never replaced. `mode` None keeps the mode of the
    file that is there, and gives a new one what the umask allows. The folder must exist.
    """
    target = Path(os.path.realpath(path))
    try:
        kind = target.stat().st_mode
    except FileNotFoundError:
        kind = None
    if kind is not None and not stat.S_ISREG(kind):
        with target.open("wb") as file:
            file.write(data)
        return Path(path)
    if mode is None:
        mode = 0o666 & ~_umask() if kind is None else stat.S_IMODE(kind)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
    try:
        _write(handle, data)
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return Path(path)


def write_new(path: Path, data: bytes) -> None:
    """Write a file in a folder that nobody looks into yet; its name lasts once the folder is synced."""
    _write(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666), data)


def sync_folder(path: Path) -> None:
    """Make the names in a folder last. Windows has no such call: its file system does that in its journal."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def _write(handle: int, data: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _umask() -> int:
    """The process's umask. Linux tells it without a moment in which other threads see another one."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    with _UMASK:
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
