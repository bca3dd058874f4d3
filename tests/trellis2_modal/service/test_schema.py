"""Every operation with generated requests: never a server error. `python -m benchmarks schema` sends more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from schemathesis import GenerationMode

from tests.trellis2_modal.server import Running
from tests.trellis2_modal.service.schema_cases import exercise, exercised_server

CASES = 20


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with exercised_server(tmp_path_factory.mktemp("data")) as live:
        yield live


# Hypothesis looks whether `random` moved while it drew; threads of the server, in this process, may have.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_no_operation_fails(api: Running, mode: GenerationMode) -> None:
    answered = exercise(api, mode, CASES)
    assert len(answered) >= 9
    assert all(answered.values())
