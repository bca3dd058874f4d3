"""One server with a fake generator for a whole module, and what most tests say."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.trellis2_modal.server import Running, picture, running
from trellis2_modal.service.config import BUNDLED_WEIGHTS


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights, or random ones of their layout."""
    from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint

    if BUNDLED_WEIGHTS.exists():
        return BUNDLED_WEIGHTS
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A shaded disc with its own matte."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    inside = x * x + y * y < 0.64
    shade = np.clip(160 + 80 * x - 60 * y, 0, 255)
    pixels = np.stack([shade, shade * 0.6, 255 - shade, inside * 255], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
