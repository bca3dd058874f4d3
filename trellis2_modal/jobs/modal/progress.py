"""What a running call tells those who watch it: a list of events in a `modal.Dict`, keyed by the call's id.

The GPU container writes the whole list each time, at most once an interval, from a thread: the model never
waits for the network. The list survives the container, so a call that runs again goes on with it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NotRequired, Protocol

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # what pydantic needs before Python 3.12

from ...protocol.errors import in_one_line
from ...protocol.events import TYPES, Data, Payload, Restarted, Started, data_of
from ...protocol.replies import EventType, ProgressReport
from ..execution import Thinning
from ..job import Moment, Seconds

logger = logging.getLogger(__name__)

WRITE_INTERVAL = 1.0
SIGN_OF_LIFE = 5.0
"""A silent call writes this often that it still runs, so that an attempt that is killed can be charged."""


class Report(TypedDict):
    """An event that has no number yet. `time` is in Unix seconds."""

    type: EventType
    time: Moment
    data: Data


class Entry(TypedDict):
    """What is stored of a call. `started` and `seen` (the last sign of life) are Unix seconds, `spent` the
    seconds of earlier attempts, `left` whether the attempt ended with a word: preempted, or its GPU lost."""

    attempt: int
    started: Moment
    seen: NotRequired[Moment]
    spent: NotRequired[Seconds]
    left: NotRequired[bool]
    events: list[Report]


ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def load_entry(raw: object) -> Entry | None:
    """What a table holds of a call; None for nothing, and for what cannot be read, which is logged."""
    try:
        return None if raw is None else ENTRY.validate_python(raw)
    except ValidationError as error:
        logger.error("the progress of a call cannot be read: %s", in_one_line(error))
        return None


class Table(Protocol):
    """The part of `modal.Dict` that is used; blocking."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def put(self, key: str, value: Any) -> Any: ...


class EventLog:
    """The events of one run of a call. `begin`, then any number of `report`s, then `close`."""

    def __init__(self, table: Table | None, call: str | None, interval: float | None = None) -> None:
        self._table = table if call else None
        self._call = call or ""
        self._interval = WRITE_INTERVAL if interval is None else interval
        self._entry: Entry = {"attempt": 0, "started": 0.0, "events": []}
        self._thinning = Thinning(self._interval)
        self._changed = threading.Condition()
        self._dirty = self._closed = False
        self._thread: threading.Thread | None = None

    def begin(self) -> Entry | None:
        """Note that the call runs; returns what an earlier run of the same call left."""
        earlier: Entry | None = None
        if self._table is not None:
            try:
                earlier = load_entry(self._table.get(self._call))
            except Exception:
                logger.warning("progress of earlier runs cannot be read", exc_info=True)
        attempt = (earlier["attempt"] if earlier else 0) + 1
        events = list(earlier["events"]) if earlier else []
        if earlier:
            events.append(_event(Restarted(reason="its container ended under it")))
        events.append(_event(Started(attempt=attempt)))
        now = time.time()
        spent = used(earlier, now) if earlier else 0.0
        self._entry = {"attempt": attempt, "started": now, "seen": now, "spent": spent, "events": events}
        self._thinning = Thinning(self._interval)
        self._write()
        if self._table is not None:
            self._thread = threading.Thread(target=self._keep_writing, name="progress", daemon=True)
            self._thread.start()
        return earlier

    @property
    def attempt(self) -> int:
        return int(self._entry["attempt"])

    @property
    def started(self) -> float:
        return float(self._entry["started"])

    @property
    def spent(self) -> float:
        """Seconds of earlier attempts, as far as they gave signs of life."""
        return float(self._entry["spent"])

    def report(self, stage: str, step: int, steps: int, message: str = "") -> None:
        """Note progress; the first and last step of a stage always, others once an interval."""
        if not self._thinning.worth_keeping(stage, step, steps):
            return
        event = _event(ProgressReport(stage=stage, step=step, steps=steps, message=message))
        with self._changed:
            self._entry = {**self._entry, "events": [*self._entry["events"], event]}
            self._dirty = True
            self._changed.notify()

    def leave(self) -> None:
        """Note that the attempt ends unfinished, but not by a crash."""
        with self._changed:
            self._entry = self._entry | {"left": True}
            self._dirty = True

    def close(self) -> None:
        """Write what is still to be written and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    def _keep_writing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed, timeout=SIGN_OF_LIFE)
                if self._closed and not self._dirty:
                    return
                self._dirty = False
            self._write()
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=self._interval)

    def _write(self) -> None:
        if self._table is None:
            return
        try:
            self._table.put(self._call, {**self._entry, "seen": time.time()})
        except Exception:  # a job must not fail because nobody can watch it
            logger.warning("progress cannot be written", exc_info=True)


def used(entry: Entry, now: float) -> float:
    """Seconds that a call has used in all its attempts; a silent one counts until it was last seen."""
    last = min(now, float(entry.get("seen", now)) + SIGN_OF_LIFE)
    return float(entry.get("spent", 0.0)) + max(0.0, last - float(entry["started"]))


def _event(payload: Payload) -> Report:
    return {"type": TYPES[type(payload)], "time": time.time(), "data": data_of(payload)}
