"""Log lines for people or for machines; the fields of `extra=` are kept either way."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
IN_THE_MESSAGE = frozenset({"method", "path", "status"})
"""Fields of an access line that its text says already."""


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
