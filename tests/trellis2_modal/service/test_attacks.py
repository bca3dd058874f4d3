"""Smaller amounts of what `python -m tests.trellis2_modal.attacks` measures."""

from __future__ import annotations

import random

import pytest

from tests.trellis2_modal.attacks.__main__ import send
from tests.trellis2_modal.attacks.grammars import GRAMMARS, case
from tests.trellis2_modal.server import Running


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*SpooledTemporaryFile"
)  # starlette, of a cut-off form
@pytest.mark.parametrize("name", GRAMMARS)
def test_no_input_is_a_fault_of_ours(server: Running, name: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    rng = random.Random(name)
    replies = []
    for number in range(40):
        request = case(name, rng, server.key)
        status = send((host, int(port)), request)
        assert status < 500 or status == 503, (number, request)
        replies.append(status)
    assert sum(status > 0 for status in replies) > 20
