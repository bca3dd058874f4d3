"""One server with a fake generator for a whole module, and what most tests say."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, picture, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A real uvicorn with a worker process; short body timeouts."""
    data_dir = tmp_path_factory.mktemp("data")
    with running(data_dir, body_idle_timeout=1.0, max_active_jobs=64, metrics=True) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def stranger(server: Running) -> Iterator[httpx.Client]:
    """A caller with a valid key of their own."""
    with server.client(server.new_key("stranger")) as client:
        yield client


@pytest.fixture
def body() -> dict[str, Any]:
    """A good body of POST /generate."""
    return {"image": base64.b64encode(picture()).decode(), "preview": "none"}
