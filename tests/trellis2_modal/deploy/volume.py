"""A Modal volume in memory, with the API that the key list uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class MemoryVolume:
    """`failing` is raised by every call, as when Modal cannot be reached."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failing: Exception | None = None
        self.reads = 0

    def read_file(self, path: str) -> Iterator[bytes]:
        self.reads += 1
        if self.failing is not None:
            raise self.failing
        if path not in self.files:
            raise FileNotFoundError(path)
        data = self.files[path]
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]

    @contextmanager
    def batch_upload(self, force: bool = False) -> Iterator[MemoryVolume]:
        if self.failing is not None:
            raise self.failing
        assert force, "an existing file is only replaced with force"
        yield self

    def put_file(self, source: Any, path: str) -> None:
        self.files[path.lstrip("/")] = source.read()
