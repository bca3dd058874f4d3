"""The Blender add-on against a live server: its HTTP part anywhere, the whole of it where bpy is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.trellis2_modal.server import Running, picture, running
from trellis2_modal.service.dry_run import canned

ADDON = Path(__file__).parents[2] / "integrations" / "blender" / "trellis2_blender"
BPY_PYTHON = os.environ.get("BPY_PYTHON", "")


def load() -> ModuleType:
    """The part of the add-on that needs no Blender."""
    spec = importlib.util.spec_from_file_location("trellis2_blender_service", ADDON / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


addon = load()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / 'a "red"\n disc.png'
    path.write_bytes(picture())
    return path


def test_a_picture_becomes_a_file(live: Running, photo: Path) -> None:
    told: list[tuple[str, float]] = []
    service = addon.Service(live.url + "/", live.key, poll=0.01)
    data = service.make(photo, {"seed": 7, "texture": True}, {"simplify": "web"}, lambda *t: told.append(t))
    assert data[:4] == b"glTF"
    assert all(0 <= done <= 1 for _, done in told)
    with live.client() as client:
        jobs = client.get("/jobs").json()["jobs"]
    assert [job["kind"] for job in jobs] == ["extract", "generate"]
    assert (jobs[1]["settings"]["seed"], jobs[1]["settings"]["texture"]) == (7, True)
    assert jobs[0]["settings"]["decimation_target"] == 50_000


def test_a_mesh_gets_the_textures_of_a_picture(live: Running, photo: Path, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.glb"
    mesh.write_bytes(canned("glb"))
    service = addon.Service(live.url, live.key, poll=0.01)
    assert service.texture(mesh, photo, {"seed": 3})[:4] == b"glTF"
    with live.client() as client:
        job = client.get("/jobs").json()["jobs"][0]
    assert (job["kind"], job["settings"]["seed"]) == ("texture", 3)
    with pytest.raises(addon.ServiceProblemError, match="mesh"):
        service.texture(photo, photo, {})


def test_what_goes_wrong_is_said_in_words(live: Running, photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    service = addon.Service(live.url, live.key, poll=0.01)
    for path, said in ((broken, "PNG, JPEG or WebP"), (tmp_path / "none.png", "No such file")):
        with pytest.raises(addon.ServiceProblemError, match=said):
            service.make(path, {}, {})
    with pytest.raises(addon.ServiceProblemError, match="unknown, revoked or expired"):
        addon.Service(live.url, "sk_wrong").make(photo, {}, {})
    with pytest.raises(addon.ServiceProblemError, match="no answer"):
        addon.Service("http://127.0.0.1:9", "sk_x", poll=0.01).make(photo, {}, {})
    for url, key in (("file:///etc/passwd", "sk_x"), ("", "sk_x"), (live.url, " ")):
        with pytest.raises(addon.ServiceProblemError):
            addon.Service(url, key)


def test_a_stop_cancels_the_job(tmp_path: Path, photo: Path) -> None:
    with running(tmp_path / "data", options={"gate": str(tmp_path / "never")}) as live:
        service = addon.Service(live.url, live.key, poll=0.01)
        with pytest.raises(addon.CancelledError):
            service.make(photo, {}, {}, cancelled=lambda: True)
        with live.client() as client:
            job = client.get("/jobs").json()["jobs"][0]["id"]
            assert "cancelled" in client.get(f"/jobs/{job}/events").text


def test_the_key_is_not_sent_on(photo: Path) -> None:
    """A redirect is an answer that is no success: no other place hears of the key."""
    asked: list[str] = []

    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("Location", f"http://localhost:{server.server_port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Tests print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Moved)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        with pytest.raises(addon.ServiceProblemError, match="answers 307"):
            addon.Service(f"http://127.0.0.1:{server.server_port}", "sk_x").make(photo, {}, {})
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked == ["/jobs"]


@pytest.fixture
def in_blender(live: Running, photo: Path) -> Any:
    """What the add-on makes of a scene; with a key that gets the canned asset, a real GLB."""
    if not BPY_PYTHON:
        pytest.skip("BPY_PYTHON names no Python that has bpy")

    def run(*more: str, **env: str) -> dict[str, Any]:
        script = str(Path(__file__).with_name("in_blender.py"))
        done = subprocess.run(
            [BPY_PYTHON, script, str(photo), *more],
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TRELLIS2_URL": live.url} | env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    return run


def test_an_object_of_a_picture_is_in_the_scene(live: Running, in_blender: Any, photo: Path) -> None:
    key = live.new_key("blender", scopes=("dry-run",))
    found = in_blender(TRELLIS2_API_KEY=key)
    assert found["ended"] == ["FINISHED"], found
    assert [name.replace("\n", "_") for name in found["names"]] == [photo.stem.replace("\n", "_")]
    assert found["faces"] > 500
    assert found["images"] >= 1
    assert len(canned("glb")) < 100_000


def test_a_selected_mesh_is_painted(live: Running, in_blender: Any) -> None:
    key = live.new_key("blender", scopes=("dry-run",))
    found = in_blender("paint", TRELLIS2_API_KEY=key)
    assert found["ended"] == ["FINISHED"], found
    assert len(found["names"]) == 2
    assert sum(name.endswith(" painted") for name in found["names"]) == 1
    with live.client(key) as client:
        kinds = [job["kind"] for job in client.get("/jobs").json()["jobs"]]
    assert kinds == ["texture", "extract", "generate"]


def test_a_refusal_is_told_by_the_operator(in_blender: Any) -> None:
    found = in_blender(TRELLIS2_API_KEY="sk_wrong")
    assert found["ended"] == ["ERROR"]
    assert "unknown, revoked or expired" in found["problem"]
    assert found["names"] == []
