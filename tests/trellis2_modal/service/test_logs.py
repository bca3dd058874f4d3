"""What operators read: a line a request, with what identifies it and nothing that must stay secret."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import trellis2_modal
from tests.trellis2_modal.server import Running, wait_for
from tests.trellis2_modal.service.test_api import finished, submit
from trellis2_modal.service.logs import JsonFormatter, ParserWarnings, PlainFormatter, fields_of

ACCESS = "trellis2_modal.access"
ARTIFACT = "/jobs/{job_id}/{artifact}"


def test_a_line_a_request(server: Running, body: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    def by_route_when_written() -> dict[Any, dict[str, Any]] | None:
        """A line is written after its reply: the caller may be the faster one."""
        lines = [fields_of(record) for record in list(caplog.records) if record.name == ACCESS]
        found: dict[Any, dict[str, Any]] = {(line["method"], line["path"]): line for line in lines}
        return found if found.keys() >= {("POST", "/jobs"), ("GET", ARTIFACT), ("GET", "/usage")} else None

    with caplog.at_level(logging.INFO), server.client() as client:
        job = submit(client, body)["id"]
        finished(client, job)
        reply = client.get(f"/jobs/{job}/state", headers={"X-Request-ID": "mine-1"})
        httpx.get(server.url + "/health")
        httpx.get(server.url + "/usage", headers={"X-API-Key": "sk_guess"})
        by_route = wait_for(by_route_when_written, "the lines")  # below this level they would be dropped
    assert reply.headers["x-request-id"] == "mine-1"
    made = by_route["POST", "/jobs"]
    assert (made["status"], made["job"]) == (202, job)
    assert str(made["key"]).startswith("key_")
    fetched = by_route["GET", ARTIFACT]
    assert (fetched["request_id"], fetched["job"], fetched["status"]) == ("mine-1", job, 200)
    assert by_route["GET", "/usage"]["status"] == 401
    assert ("GET", "/health") not in by_route  # at DEBUG: asked every few seconds by machines
    assert server.key not in caplog.text
    assert "sk_guess" not in caplog.text


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", 'a"b', "a\tb", "../x"])
def test_a_request_id_that_is_not_one_is_replaced(server: Running, sent: str) -> None:
    reply = httpx.get(server.url + "/health", headers={"X-Request-ID": sent})
    assert reply.headers["x-request-id"] not in (sent, "")


def test_the_two_formats() -> None:
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "GET %s 200", ("/usage",), None)
    vars(record).update(request_id="r1", status=200, key="", color_message="%d")
    assert PlainFormatter().format(record).endswith("INFO GET /usage 200 request_id=r1")
    assert datetime.fromisoformat(json.loads(JsonFormatter().format(record))["time"]).tzinfo is not None
    line = json.loads(JsonFormatter().format(record))
    assert (line["request_id"], line["status"], line["message"]) == ("r1", 200, "GET /usage 200")
    assert "color_message" not in line


def test_every_code_of_the_log_is_in_the_runbook() -> None:
    """Replies say that the log has the reason; the code is what an operator looks for."""
    package = Path(trellis2_modal.__file__).parent
    code = re.compile(r'extra=\{"code": "([a-z-]+)"')
    found = {name for file in package.rglob("*.py") for name in code.findall(file.read_text("utf-8"))}
    assert {"model-unavailable", "keys-unreadable"} <= found
    runbook = (package / "docs" / "OPERATIONS_RUNBOOK.md").read_text("utf-8")
    assert [name for name in found if f"`{name}`" not in runbook] == []
    promised = re.compile(r"the (?:service's )?log says why \(([a-z-]+)\)")
    replies = {name for file in package.rglob("*.py") for name in promised.findall(file.read_text("utf-8"))}
    assert replies
    assert replies <= found


def test_what_strangers_can_cause_without_end_is_told_once_a_minute() -> None:
    now = 0.0
    seen = ParserWarnings(lambda: now)

    def passes(name: str, line: int, level: int = logging.WARNING) -> bool:
        record = logging.LogRecord(
            name, level, "h11_impl.py", line, "Invalid HTTP request received.", (), None
        )
        return bool(seen.filter(record))

    assert [passes("uvicorn.error", 10) for _ in range(3)] == [True, False, False]
    assert passes("python_multipart.multipart", 20), "another place"
    assert [passes("uvicorn.error", 10, logging.ERROR) for _ in range(2)] == [True, True]
    assert [passes("trellis2_modal.jobs", 10) for _ in range(2)] == [True, True]
    now = 61.0
    assert passes("uvicorn.error", 10)
