"""Every operation of the OpenAPI document with generated requests, good and bad: never a server error."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.trellis2_modal.server import Running, running

CASES = int(os.environ.get("TRELLIS2_SCHEMA_CASES", "20"))
"""Cases an operation and mode; the long run: TRELLIS2_SCHEMA_CASES=1000 pytest -k schema."""

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = {"step_seconds": 0.0}
    with running(tmp_path_factory.mktemp("data"), options=options, max_active_jobs=10**6) as live:
        yield live


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_no_operation_fails(api: Running, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(api.url + "/openapi.json")
    seen = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.path == "/health":
            continue  # it takes nothing that could be wrong
        seen += 1

        @settings(
            max_examples=CASES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            response = case.call(headers={"X-API-Key": api.key})
            assert response.status_code < 500 or response.status_code == 503, response.text
            case.validate_response(response, checks=CHECKS)

        check()
    assert seen >= 9
