"""A container of the GPU class as it starts: the two enter hooks, and what it does when one fails."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...protocol.errors import UnavailableError
from .start_record import Start, StartRecord

if TYPE_CHECKING:
    from .model_host import ModelHost

logger = logging.getLogger(__name__)

FRESH_STARTS = 6
"""Starts without a snapshot after which GPU snapshots are given up: the platform makes two or three of them
for each kind of worker, and another each time that it could not restore one."""

PATH = re.compile(r"(?<![\w.:/])/[\w.\-/]+")


class Container:
    """`before_snapshot`, then `after_restore`; afterwards `host` works, or `refusal` says why it does not."""

    def __init__(
        self, open_host: Callable[[], ModelHost], record: StartRecord, gpu_snapshot: bool = False
    ) -> None:
        self._open_host = open_host
        self._record = record
        self._gpu_snapshot = gpu_snapshot
        self._host: ModelHost | None = None
        self._on_device = False
        self._began = ""
        self._reason = ""

    @property
    def host(self) -> ModelHost:
        if self._host is None:
            raise RuntimeError(self._reason or "the container has not started")
        return self._host

    def before_snapshot(self) -> None:
        """What a snapshot may hold. Only the last of the failures is not raised."""
        start = self._begin(fresh=True)
        self._attempt(start, lambda: self._load(start.fresh <= FRESH_STARTS))

    def after_restore(self) -> None:
        """The GPU, the weights on it, every kernel once; then the record says that this deployment works."""
        start = self._begin(fresh=False)
        self._attempt(start, self._finish)

    def refusal(self) -> UnavailableError | None:
        """What to answer every job with where the start failed."""
        if not self._reason:
            return None
        return UnavailableError(f"the service cannot start: {self._reason}", retry_after=300)

    def health(self) -> dict[str, Any]:
        if self._reason:
            return {"status": "degraded", "reason": self._reason}
        return self.host.health()

    def _begin(self, fresh: bool) -> Start:
        container = os.environ.get("MODAL_TASK_ID", "")
        if self._began and fresh is False and container != self._began:
            self._record.forget(self._began)  # one container that got another id with its snapshot
        self._began = container
        return self._record.begin(container, fresh)

    def _attempt(self, start: Start, step: Callable[[], None]) -> None:
        self._reason = start.broken
        if self._reason:
            logger.error("no start is tried any more: %s", self._reason, extra={"stage": "start"})
            return
        try:
            step()
        except Exception as error:
            start = self._record.failed(self._began, public_reason(error))
            if not start.broken:
                raise
            logger.exception("this container stays up to answer what waits")
            self._reason = start.reason

    def _load(self, gpu_snapshot: bool) -> None:
        host = self._open_host()
        host.load_cpu()
        self._host = host
        if self._gpu_snapshot and gpu_snapshot:
            self._move()
        elif self._gpu_snapshot:
            logger.error("GPU snapshots are given up: too many failed", extra={"stage": "start"})

    def _move(self) -> None:
        self.host.to_device()
        self.host.warm_up()
        self._on_device = True

    def _finish(self) -> None:
        if self._host is None:  # of a snapshot that was made of a failure
            self._load(False)
        if self._on_device:
            self.host.resume()
        else:
            self._move()
        self._record.ready(self.host.health())


def public_reason(error: BaseException) -> str:
    """The first line of an error for people outside: its type, and its text without folders."""
    text = str(error).splitlines()[0] if str(error) else "no further word"
    shown = PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
    return f"{type(error).__name__}: {shown}"
