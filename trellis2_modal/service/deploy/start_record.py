"""What containers of the GPU class note about their starts, for one another and for the gateway.

Modal starts a container that crashed again, for as long as inputs wait. So each start is noted in a table:
the second one that fails stays up and answers what waits with the reason, and the gateway, which reads the
same entry, takes no more jobs. An entry belongs to one deployment: another deploy begins with none.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)

KEY = "start"
DEPLOYMENT_VARIABLE = "TRELLIS2_DEPLOYMENT"
MOST_STARTS = 2
"""Starts in a row that may fail; the last of them stays up to say why."""

NO_WORD = "its containers ended while they started, without a word (killed, or a crash in a library)"


class Table(Protocol):
    """The part of `modal.Dict` that is used; blocking."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def put(self, key: str, value: Any) -> Any: ...


@dataclass(frozen=True)
class Start:
    """The entry of a deployment; `state` is starting, ready or failed."""

    deployment: str
    state: str = "starting"
    reason: str = ""
    failures: int = 0
    """Since the last start that came to its end."""

    starting: tuple[str, ...] = ()
    """Containers that began to start, and have neither come to an end nor failed with a word."""

    fresh: int = 0
    """Starts that had no snapshot to begin from."""

    time: float = 0.0
    report: Mapping[str, Any] | None = None
    """Of the last ready start: device, backends, seconds by stage."""

    @classmethod
    def load(cls, raw: Any, deployment: str) -> Start:
        """The entry of this deployment; a new one for another's, or for what cannot be read."""
        if not isinstance(raw, dict) or raw.get("deployment") != deployment:
            return cls(deployment)
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        return cls(**known | {"starting": tuple(known.get("starting", ()))})

    @property
    def broken(self) -> str:
        """Why no container of this deployment can start, or an empty string."""
        return self.reason if self.state == "failed" and self.failures >= MOST_STARTS else ""


def deployment_id() -> str:
    """The id that a deploy gave its containers; a new one on the machine that deploys."""
    return os.environ.get(DEPLOYMENT_VARIABLE) or secrets.token_hex(8)


class StartRecord:
    """The entry as one container writes it; `parallel` containers may start at the same time.

    A table that cannot be reached hinders no start.
    """

    def __init__(self, table: Table | None, deployment: str, parallel: int = 1) -> None:
        self._table = table
        self._deployment = deployment
        self._parallel = parallel

    def read(self) -> Start:
        raw: Any = None
        if self._table is not None:
            try:
                raw = self._table.get(KEY)
            except Exception:
                logger.warning("the record of starts cannot be read", exc_info=True)
        return Start.load(raw, self._deployment)

    def begin(self, container: str, fresh: bool) -> Start:
        """Note that a container starts, from nothing or from a snapshot; the entry as it is then.

        More that began and were never heard of than can start at once: the others crashed.
        """
        before = self.read()
        starting = tuple(dict.fromkeys((*before.starting, container)))
        entry = {"starting": starting, "fresh": before.fresh + int(fresh)}
        if len(starting) >= self._parallel + MOST_STARTS:
            return self._write(before, **entry, state="failed", reason=NO_WORD, failures=MOST_STARTS)
        return self._write(before, **entry)

    def forget(self, container: str) -> None:
        """A container that began under this id goes on under another."""
        before = self.read()
        if container in before.starting:
            self._write(before, starting=tuple(other for other in before.starting if other != container))

    def failed(self, container: str, reason: str) -> Start:
        """Note why this container's start failed."""
        before = self.read()
        failures = before.failures + 1
        logger.error("a start failed: %s", reason, extra={"stage": "start", "failures": failures})
        left = tuple(other for other in before.starting if other != container)
        return self._write(before, state="failed", reason=reason, failures=failures, starting=left)

    def ready(self, report: Mapping[str, Any]) -> Start:
        """Note that a container takes work: earlier failures are over."""
        return self._write(
            self.read(), state="ready", reason="", failures=0, starting=(), report=dict(report)
        )

    def _write(self, before: Start, **changes: Any) -> Start:
        entry = asdict(before) | {"time": time.time()} | changes
        if self._table is not None:
            try:
                self._table.put(KEY, entry)
            except Exception:
                logger.warning("the record of starts cannot be written", exc_info=True)
        return Start.load(entry, self._deployment)
