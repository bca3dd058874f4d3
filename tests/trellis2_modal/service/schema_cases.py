"""Generated requests, good and bad, for every operation of a running server's OpenAPI document."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.trellis2_modal.server import MATTE, Running, picture, running
from trellis2_modal.service.http.pictures.matte import MatteProcess

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@contextmanager
def exercised_server(folder: Path) -> Iterator[Running]:
    """A server on which nothing but the requests themselves can be refused."""
    with running(
        folder,
        options={"step_seconds": 0.0},
        matter=MatteProcess(MATTE),
        max_active_jobs=10**6,
        mattes_per_minute=10**6,
    ) as live:
        yield live


def exercise(api: Running, mode: GenerationMode, cases: int) -> dict[str, Counter[int]]:
    """Send `cases` requests to each operation; the statuses it answered.

    Raises AssertionError for a server error, and for any reply that the document does not promise.
    """
    real = _real_things(api)
    document = httpx.get(api.url + "/openapi.json").json()
    if mode is GenerationMode.NEGATIVE:
        _leave_out_forms(document)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=api.url)
    answered: dict[str, Counter[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.path in ("/", "/health"):
            continue  # it takes nothing that could be wrong
        answered[operation.label] = _exercise_one(api, operation, mode, cases, real)
    return answered


def _leave_out_forms(document: dict[str, Any]) -> None:
    """Schemathesis 4.32 fails when it breaks a form with a file; test_hostile breaks forms by hand."""
    for path in document["paths"].values():
        for operation in path.values():
            operation.get("requestBody", {}).get("content", {}).pop("multipart/form-data", None)


def _real_things(api: Running) -> dict[str, str]:
    """A picture, and the state and id of a finished generation, for requests that should go all the way."""
    image = base64.b64encode(picture()).decode()
    with api.client() as client:
        made = client.post("/generate", json={"image": image, "preview": "frames"}).json()
    return {"image": image, "state": made["state"], "job": made["job"]}


def _with_real_things(case: schemathesis.Case, real: dict[str, str]) -> None:
    """Put real things where the document can only say "a string"."""
    if "job_id" in case.path_parameters:
        case.path_parameters["job_id"] = real["job"]
    if isinstance(case.body, dict):
        for name, value in real.items():
            if isinstance(case.body.get(name), str):
                case.body[name] = value
            elif case.body.get(name) is not None:  # the file of a form
                case.body[name] = base64.b64decode(value)


def _exercise_one(
    api: Running, operation: Any, mode: GenerationMode, cases: int, real: dict[str, str]
) -> Counter[int]:
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            _with_real_things(case, real)
        response = case.call(headers={"X-API-Key": api.key})
        statuses[response.status_code] += 1
        assert response.status_code < 500 or response.status_code == 503, response.text
        case.validate_response(response, checks=CHECKS)

    check()
    return statuses
