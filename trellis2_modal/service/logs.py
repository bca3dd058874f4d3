"""Log lines for people or for machines; the fields of `extra=` are kept either way."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
IN_THE_MESSAGE = frozenset({"method", "path", "status"})
"""Fields of an access line that its text says already."""


PARSERS = ("uvicorn.error", "python_multipart")
"""Loggers that warn of every request that is not HTTP, or not a form."""

LOG_INTERVAL = 60.0
"""Seconds between two lines of one kind that any stranger can cause."""


def log_to_stderr(formatter: logging.Formatter, level: str | int = logging.INFO) -> None:
    """Everything to stderr, and to nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(ParserWarnings())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Sparingly:
    """Whether a line of some kind is due: once in `LOG_INTERVAL`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[Hashable, float] = {}

    def due(self, kind: Hashable) -> bool:
        now = self._clock()
        if now - self._last.get(kind, float("-inf")) < LOG_INTERVAL:
            return False
        self._last[kind] = now
        return True


class ParserWarnings(logging.Filter):
    """Each warning of a parser once an interval: any stranger can cause as many as he likes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = Sparingly(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or not record.name.startswith(PARSERS):
            return True
        return self._lines.due((record.pathname, record.lineno))


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What the caller added with `extra=`."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


class PlainFormatter(logging.Formatter):
    """`time LEVEL message name=value ...`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        fields = fields_of(record).items()
        extra = " ".join(f"{name}={value}" for name, value in fields if name not in IN_THE_MESSAGE and value)
        return f"{super().formatMessage(record)} {extra}".rstrip()


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        } | fields_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
