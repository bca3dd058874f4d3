"""A file in a data folder that tells other processes of this user where its server listens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .durable import write_atomically

FILE = "server.json"
LOCK = "server.lock"
"""A file beside it, locked by the server as long as its process lives."""


@dataclass(frozen=True)
class RunningServer:
    """A server's address, the file with this machine's own key ("" where there is none), and its process."""

    url: str
    key_file: str
    pid: int

    def read_key(self) -> str:
        """This machine's own key; "" where there is none any more."""
        try:
            return Path(self.key_file).read_text().strip() if self.key_file else ""
        except OSError:
            return ""


@contextmanager
def announced(folder: Path, server: RunningServer) -> Iterator[None]:
    """The file exists while this lasts."""
    path = folder / FILE
    write_atomically(path, json.dumps(asdict(server)).encode(), mode=0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_server(folder: Path) -> RunningServer | None:
    """The server that is announced there; None when there is none.

    A killed server leaves its file: whether its process still holds `LOCK` is for the caller to see.
    """
    try:
        found = json.loads((folder / FILE).read_text())
        return RunningServer(str(found["url"]), str(found["key_file"]), int(found["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
