"""Pixel-aligned weights of both kinds behind the real HTTP server, asked by the real client."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from tests.trellis2.pipelines.conftest import picture  # noqa: F401
from tests.trellis2.pipelines.test_pixel_aligned import load, turned
from tests.trellis2_modal.memory import memory_engine
from tests.trellis2_modal.server import settings_for, wait_for
from trellis2.conditioning.camera import named_camera
from trellis2_modal.client.api import Client
from trellis2_modal.protocol.errors import InvalidRequestError, UnsupportedPipelineError
from trellis2_modal.protocol.state import decompress_state, unpack_state
from trellis2_modal.service.auth import KeyFile, keys_path, local_admin
from trellis2_modal.service.generator import TRELLIS2Generator
from trellis2_modal.service.http.app import create_app
from trellis2_modal.sockets import listen

FAST = {f"{stage}_sampling_steps": 1 for stage in ("ss", "shape_slat", "tex_slat")} | {"preview": "none"}


@contextmanager
def served(generator: TRELLIS2Generator, data_dir: Path) -> Iterator[Client]:
    generator.load_model_cpu()
    settings = settings_for(data_dir)
    _, key = local_admin(data_dir).create("tests", requests_per_minute=1000, gpu_seconds_per_day=1e6)
    app = create_app(memory_engine(generator, settings), KeyFile(keys_path(data_dir)), settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_for(lambda: server.started or None, "the server's start")
            with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", key) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module", params=["pipeline.json", "pipeline_mv.json"])
def service(
    request: pytest.FixtureRequest,
    pixel_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Client, bool]]:
    """A client, and whether its service has the weights for several views."""
    generator = TRELLIS2Generator(lambda: load(pixel_checkpoint, request.param), model="tiny")
    with served(generator, tmp_path_factory.mktemp("data")) as client:
        yield client, "mv" in request.param


@pytest.fixture
def pair(picture: Image.Image) -> list[bytes]:  # noqa: F811
    found = []
    for image in (picture, turned(picture, 1)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def test_pictures_become_an_asset(service: tuple[Client, bool], pair: list[bytes]) -> None:
    client, several = service
    health = client.health()
    assert health.pipeline_types == ["1024_cascade", "1536_cascade"]
    least, most = (2, 8) if several else (1, 1)
    assert health.views.model_dump() == {"least": least, "most": most, "cameras": True}
    asset = client.generate(pair, views=["front", "left"], fov=25.0, **FAST)
    assert asset.settings["pipeline_type"] == "1024_cascade"
    assert len(unpack_state(decompress_state(asset.state)).coords) == asset.stats["voxels"] > 0
    expected = [] if several else [("views", "multi-view weights do better")]
    for notice, (code, words) in zip(asset.warnings, expected, strict=True):
        assert notice.code == code
        assert words in notice.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"views": None}, "need 2 cameras, none given"),
        ({"views": ["front", "front"]}, "both from front"),
        ({"fov": 100.0}, "below 90 degrees"),
        ({"estimate_fov": True}, "estimated for one picture alone"),
        ({"turned": True}, "sees nothing: the object lies behind it"),
        ({"inside": True}, "behind the camera of view 2"),
        ({"small": True}, "square and of one size"),
    ],
)
def test_cameras_that_cannot_be_are_refused_in_words(
    service: tuple[Client, bool], pair: list[bytes], change: dict[str, Any], says: str
) -> None:
    client, _ = service
    matrices = [named_camera(name).camera_to_world for name in ("front", "left")]
    if "turned" in change:
        matrices[1][:3, [0, 2]] *= -1
    if "inside" in change:
        matrices[1][:3, 3] *= 0.1
    if "small" in change:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(pair[1])).resize((64, 64)).save(buffer, "PNG")
        pair = [pair[0], buffer.getvalue()]
    posed = {"views": [m.tolist() for m in matrices], "fov": 20.0}
    asked = posed if {"turned", "inside", "small"} & change.keys() else {"views": ["front", "left"]} | change
    error: Any = Exception if "small" in change else InvalidRequestError
    with pytest.raises(error, match=says):
        client.generate(pair, **asked, **FAST)


def test_a_type_that_these_weights_lack(service: tuple[Client, bool], pair: list[bytes]) -> None:
    with pytest.raises(UnsupportedPipelineError, match="1024 is not offered; choose one of 1024_cascade"):
        service[0].generate(pair[0], pipeline_type="1024")
