"""More than 300 bad requests of every kind: each is refused, and none starts a GPU."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient

from tests.trellis2_modal.deploy.conftest import Deployed
from tests.trellis2_modal.server import picture
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings

IMAGE = base64.b64encode(picture()).decode()
STATE = base64.b64encode(b"no state at all").decode()
ODD: tuple[Any, ...] = ({}, [[]], "\x00", "1; DROP", -1e300, 10**30, [1] * 100)
"""Values that no field takes; a field that takes one of them is sent the others."""

CALLS = (
    ("/generate", GenerateSettings, {"image": IMAGE}),
    ("/extract_glb", ExtractSettings, {"state": STATE}),
)
Request = tuple[str, str, dict[str, Any]]


def bad_settings() -> Iterator[Request]:
    for (path, model, body), odd in itertools.product(CALLS, ODD):
        for name in model.model_fields:
            if name == "export" and odd == {}:
                continue  # an export with every setting left out
            yield "POST", path, {"json": body | {name: odd}}


def bad_bodies() -> Iterator[Request]:
    whole = picture()
    pictures = [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        whole[:40],
        whole[: len(whole) // 2],
        whole[::-1],
        b"\0" * 999,
    ]
    for path, data in itertools.product(("/generate", "/jobs", "/matte"), pictures):
        body: dict[str, Any] = {"image": base64.b64encode(data).decode()}
        yield "POST", path, {"json": body | ({"kind": "generate"} if path == "/jobs" else {})}
        yield "POST", path, {"files": {"image": data}, "data": {"seed": "one"}}
    texts = [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"image": 1}',
        b'{"image": "a", "image": "b"}',
        b"[" * 5000,
        b"\xff\xfe",
    ]
    for path, text in itertools.product(("/generate", "/extract_glb", "/jobs", "/matte"), texts):
        for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
            yield "POST", path, {"content": text, "headers": {"Content-Type": kind}}
    for state in (b"", b"\x04\x22\x4d\x18", b"\x04\x22\x4d\x18" + b"\0" * 64, b"PK\x03\x04", b"\x80\x05."):
        yield "POST", "/extract_glb", {"json": {"state": base64.b64encode(state).decode()}}
        yield "POST", "/jobs", {"json": {"kind": "extract", "state": base64.b64encode(state).decode()}}
    yield "POST", "/extract_glb", {"json": {}}
    yield "POST", "/extract_glb", {"json": {"job": "job_" + "0" * 32}}
    yield "POST", "/extract_glb", {"json": {"job": "../../keys.json"}}


def bad_callers(secrets: list[str]) -> Iterator[Request]:
    for secret, path in itertools.product(
        ["", "sk_", "x" * 4000, *secrets], ("/generate", "/jobs", "/usage")
    ):
        headers = {"X-API-Key": secret}
        yield ("GET" if path == "/usage" else "POST"), path, {"json": {"image": IMAGE}, "headers": headers}
    for tag in ("", "x" * 300, "caf\u00e9".encode("latin-1")):
        yield "POST", "/generate", {"json": {"image": IMAGE}, "headers": {"Idempotency-Key": tag}}
    for accept in ("text/html", "image/png", "application/json;q=0"):
        yield "POST", "/generate", {"json": {"image": IMAGE}, "headers": {"Accept": accept}}
    for method, path in itertools.product(
        ("GET", "PUT", "PATCH", "DELETE"), ("/generate", "/extract_glb", "/x")
    ):
        yield method, path, {}
    for path in ("/jobs/x", "/jobs/%2e%2e%2fkeys.json", "/jobs/x/events", "/jobs/x/state", "/jobs?limit=1e9"):
        yield "GET", path, {}


def test_none_of_them_starts_a_gpu(deployed: Deployed) -> None:
    revoked, secret = deployed.admin.create("revoked")
    deployed.admin.revoke(revoked.id)
    requests = [*bad_settings(), *bad_bodies(), *bad_callers([secret, deployed.new_key("old", expires=1.0)])]
    assert len(requests) >= 300
    with deployed.gateway() as client:
        answered = Counter(refused(client, *request) for request in requests)
    assert set(answered) <= {400, 401, 404, 405, 406, 415, 422, 429}, answered
    mattes = sum(path == "/matte" for _, path, _ in requests)
    assert answered[429] < mattes, answered  # their limit is lower than that of other calls
    assert deployed.modal.spawned == []
    assert deployed.modal.containers_made == 0


def refused(client: TestClient, method: str, path: str, options: dict[str, Any]) -> int:
    reply = client.request(method, path, **options)
    assert reply.status_code >= 400, (method, path, options, reply.text[:200])
    return reply.status_code
