"""What containers of the GPU class note about their starts, for one another and for the gateway.

Modal starts a container that crashed again, for as long as inputs wait. So a start that fails is noted in a
table; the second one that fails stays up and answers what waits with the reason, and the gateway, which reads
the same entry, takes no more jobs. An entry belongs to one deployment: another deploy begins with none.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

KEY = "start"
DEPLOYMENT_VARIABLE = "TRELLIS2_DEPLOYMENT"
MOST_STARTS = 2
"""Starts in a row that may fail before a container stays up to say why."""

FRESH_STARTS = 6
"""Starts without a snapshot of one deployment; Modal makes two or three snapshots for each kind of worker."""

NO_WORD = "its container ended without a word (killed, out of memory, or a crash in a library)"


class Table(Protocol):
    """The part of `modal.Dict` that is used; blocking."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def put(self, key: str, value: Any) -> Any: ...


@dataclass(frozen=True)
class Start:
    """The entry: `state` is starting, ready or failed; `failures` counts since the last ready start."""

    deployment: str
    state: str = "starting"
    container: str = ""
    reason: str = ""
    failures: int = 0
    fresh: int = 0
    """Starts of this deployment that had no snapshot."""

    time: float = 0.0
    report: dict[str, Any] | None = None
    """Of the last ready start: GPU, backends and seconds by stage."""

    @classmethod
    def load(cls, raw: Any, deployment: str) -> Start:
        """The entry of this deployment; a new one for another's, or for what cannot be read."""
        if not isinstance(raw, dict) or raw.get("deployment") != deployment:
            return cls(deployment)
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**known)

    @property
    def broken(self) -> str:
        """Why this deployment cannot start, or an empty string."""
        return self.reason if self.state == "failed" and self.failures >= MOST_STARTS else ""


def deployment_id() -> str:
    return os.environ.get(DEPLOYMENT_VARIABLE, "")


class StartRecord:
    """The entry, as one container writes it. A table that cannot be reached hinders no start."""

    def __init__(self, table: Table | None, deployment: str = "", container: str = "") -> None:
        self._table = table
        self._deployment = deployment or deployment_id()
        self._container = container or os.environ.get("MODAL_TASK_ID", "")

    def read(self) -> Start:
        if self._table is None:
            return Start(self._deployment)
        try:
            return Start.load(self._table.get(KEY), self._deployment)
        except Exception:
            logger.warning("the record of starts cannot be read", exc_info=True)
            return Start(self._deployment)

    def begin(self, fresh: bool) -> Start:
        """Note that this container starts, without a snapshot or restored from one; the entry as it is then.

        An earlier start that neither came to its end nor said why has failed.
        """
        before = self.read()
        failures, reason = before.failures, before.reason
        if before.state == "starting" and before.container not in ("", self._container):
            failures, reason = failures + 1, NO_WORD
        state = "failed" if failures >= MOST_STARTS else "starting"
        return self._write(
            before, state=state, reason=reason, failures=failures, fresh=before.fresh + int(fresh)
        )

    def failed(self, reason: str) -> Start:
        """Note why this start failed."""
        before = self.read()
        logger.error("start failed: %s", reason, extra={"stage": "start", "failures": before.failures + 1})
        return self._write(before, state="failed", reason=reason, failures=before.failures + 1)

    def ready(self, report: dict[str, Any]) -> Start:
        """Note that this container takes work: earlier failures are over."""
        return self._write(self.read(), state="ready", reason="", failures=0, report=report)

    def _write(self, before: Start, **changes: Any) -> Start:
        entry = vars(before) | {"container": self._container, "time": time.time()} | changes
        if self._table is not None:
            try:
                self._table.put(KEY, entry)
            except Exception:
                logger.warning("the record of starts cannot be written", exc_info=True)
        return Start(**entry)
