"""The whole way with a real pipeline in the worker: the bundled weights, or random ones of that layout."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint
from tests.trellis2_modal.server import Running, ServerProcess, running, wait_for
from tests.trellis2_modal.service.test_api import events_of
from trellis2_modal.client.compression import load_state, peek_state
from trellis2_modal.protocol.stages import STAGES
from trellis2_modal.service.config import BUNDLED_WEIGHTS

STEPS = {f"{stage}_sampling_steps": "2" for stage in ("ss", "shape_slat", "tex_slat")}
PATIENCE = 450.0  # frayed meshes are slow to simplify


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the bundled ones' layout: the same code, a tenth of the work."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


FACTORY = "trellis2_modal.service.generator:create"


@contextmanager
def served(folder: Path, weights: Path) -> Iterator[Running]:
    """A server that is ready, with a pipeline of these weights."""
    with running(folder, FACTORY, {"weights": str(weights), "device": "cpu"}, ready=False) as server:
        wait_for(lambda: httpx.get(server.url + "/health").json()["status"] == "ok", "the model", PATIENCE)
        yield server


def submit(client: httpx.Client, photo: bytes, **fields: str) -> str:
    data = {"pipeline_type": "512", "preview": "none"} | STEPS | fields
    reply = client.post("/jobs", files={"image": photo}, data=data)
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/jobs/{job}").json()
        return found if found["status"] in ("finished", "failed", "cancelled") else None

    return wait_for(look, f"the end of {job}", PATIENCE)


@pytest.mark.slow
def test_a_picture_becomes_a_file(tmp_path: Path, weights: Path, photo: bytes) -> None:
    with served(tmp_path, weights) as live, live.client(timeout=PATIENCE) as client:
        job = submit(client, photo, seed="5")
        done = ended(client, job)
        assert done["status"] == "finished", done["problem"]
        compressed = client.get(f"/jobs/{job}/state").content
        header = peek_state(compressed)
        assert header["levels"] is not None, "the decoder's voxel order is not recognised"
        assert header["linked"] == header["voxels"]
        assert header["quads"] > 0, "the decoder's faces are not recognised"
        state = load_state(compressed)
        assert len(state.coords) == done["result"]["stats"]["voxels"] > 0
        assert state.info["seed"] == 5
        events = events_of(client.get(f"/jobs/{job}/events"))
        stages = {e.data["stage"] for e in events if e.type == "progress"}
        assert len(stages) >= 4, stages
        assert stages <= STAGES.keys()
        extraction = {"job": job, "decimation_target": 2000, "texture_size": 256, "remesh": False}
        glb = client.post("/extract_glb", json=extraction, headers={"Accept": "model/gltf-binary"})
        if BUNDLED_WEIGHTS.exists() or glb.status_code == 200:
            assert glb.content[:4] == b"glTF"
        else:  # random weights may leave nothing that is a surface: then it is said
            assert glb.json()["type"] in ("invalid-state", "invalid-request"), glb.text


@pytest.mark.slow
def test_the_bundled_weights_make_an_asset_at_1024(tmp_path: Path) -> None:
    """By the cascade, of a thin object: few tokens. What a request that names no type gets stays 512."""
    photo = (BUNDLED_WEIGHTS.parents[1] / "example_image" / "lamp.png").read_bytes()
    with served(tmp_path, BUNDLED_WEIGHTS) as live, live.client(timeout=PATIENCE) as client:
        health = client.get("/health").json()
        assert health["pipeline_types"] == ["512", "1024_cascade"]
        assert health["default_pipeline_type"] == "512"
        refused = client.post("/jobs", files={"image": photo}, data={"pipeline_type": "1536_cascade"})
        assert (refused.status_code, "1536_cascade" in refused.json()["detail"]) == (400, True)
        steps = {"ss_sampling_steps": "12", "tex_slat_sampling_steps": "1"}  # a structure in few is a cloud
        job = submit(client, photo, pipeline_type="1024_cascade", keep_latents="true", **steps)
        done = ended(client, job)
        assert done["status"] == "finished", done["problem"]
        state = load_state(client.get(f"/jobs/{job}/state").content)
        assert state.latents is not None
        assert state.latents.resolution == 1024
        assert 512 < int(state.coords.max()) < 1024
        assert len(state.coords) == done["result"]["stats"]["voxels"]


@pytest.mark.slow
def test_cancel_and_kill(tmp_path: Path, tiny: Path, photo: bytes) -> None:
    with served(tmp_path, tiny) as live, live.client(timeout=PATIENCE) as client:
        job = submit(client, photo, ss_sampling_steps="50", shape_slat_sampling_steps="50")
        wait_for(lambda: client.get(f"/jobs/{job}").json()["progress"], "the first step", PATIENCE)
        client.delete(f"/jobs/{job}")
        assert ended(client, job)["status"] == "cancelled"
        job = submit(client, photo)
        wait_for(lambda: client.get(f"/jobs/{job}").json()["status"] == "running", "its start", PATIENCE)
        os.kill(int((live.data_dir / "worker.lock").read_text()), signal.SIGKILL)
        done = ended(client, job)
        assert (done["status"], done["attempt"]) == ("finished", 2)


@pytest.mark.slow
def test_nothing_is_lost_when_worker_and_server_are_killed(tmp_path: Path, tiny: Path, photo: bytes) -> None:
    """Two callers, six jobs; the worker is killed twice and the server once, each time in the middle."""
    options = {"weights": str(tiny), "device": "cpu"}
    server = ServerProcess(tmp_path, options, FACTORY, max_attempts=6)
    keys = [server.admin.create(name, requests_per_minute=1000)[1] for name in ("anna", "bert")]
    server.start(PATIENCE)
    try:
        with ExitStack() as open_clients:
            callers = [
                open_clients.enter_context(
                    httpx.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=PATIENCE)
                )
                for key in keys
            ]
            jobs = {submit(caller, photo, seed=str(n)): caller for n in range(3) for caller in callers}
            for kill in (server.kill_worker, server.kill_worker, server.kill):
                wait_for(lambda: any(_running(caller) for caller in callers), "a running job", PATIENCE)
                kill()
                if kill == server.kill:
                    server.start(PATIENCE)
            attempts = 0
            for job, caller in jobs.items():
                done = ended(caller, job)
                assert done["status"] == "finished", done["problem"]
                attempts += done["attempt"]
                assert load_state(caller.get(f"/jobs/{job}/state").content).info["seed"] is not None
                finals = [e for e in events_of(caller.get(f"/jobs/{job}/events")) if e.type == "result"]
                assert len(finals) == 1
                other = next(c for c in callers if c is not caller)
                assert other.get(f"/jobs/{job}/state").status_code == 404
            assert attempts > len(jobs)
    finally:
        server.kill()


def _running(caller: httpx.Client) -> bool:
    return any(job["status"] == "running" and job["progress"] for job in caller.get("/jobs").json()["jobs"])
