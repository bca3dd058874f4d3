"""Smaller amounts of what `python -m tests.trellis2_modal.attacks` measures."""

from __future__ import annotations

import random
import socket

import pytest

from tests.trellis2_modal.attacks.grammars import GRAMMARS, case
from tests.trellis2_modal.server import Running


@pytest.mark.parametrize("name", GRAMMARS)
def test_no_input_is_a_fault_of_ours(server: Running, name: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    rng = random.Random(name)
    for number in range(40):
        request = case(name, rng, server.key)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                reply = connection.recv(64)
            except ConnectionError:
                continue
        status = int(reply.split()[1]) if reply.startswith(b"HTTP/1.1 ") else 0
        assert status < 500 or status == 503, (number, request, reply)
