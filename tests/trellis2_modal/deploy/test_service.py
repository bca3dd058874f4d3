"""The deployment module: what it defines, as plain data and through Modal's own descriptions, and locally."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest
import torch
from starlette.testclient import TestClient

from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint
from tests.trellis2_modal import fake
from tests.trellis2_modal.deploy.emulated import HostedFake
from tests.trellis2_modal.server import picture
from trellis2_modal.jobs.execution import DeviceLostError
from trellis2_modal.protocol.errors import ExpiredError
from trellis2_modal.service import service
from trellis2_modal.service.config import BUNDLED_MODEL, BUNDLED_WEIGHTS, DeploySettings, gateway_settings
from trellis2_modal.service.deploy import model_host
from trellis2_modal.service.deploy.weights.manifest import WeightsError

ROOT = Path(__file__).parents[3]
STEPS = {f"{part}_sampling_steps": 2 for part in ("ss", "shape_slat", "tex_slat")}

DESCRIBE = """
import json, os, sys, time
start = time.process_time()
import trellis2_modal.service.service as s
seconds = time.process_time() - start
gpu, web = s.TRELLIS2Service().generate.info(), s.web.info()
print(json.dumps({
    "seconds": seconds,
    "modules": sorted({"torch", "fastapi", "trellis2", "o_voxel", "limits", "uvicorn"} & set(sys.modules)),
    "app": s.app.name,
    "gpus": list(gpu.gpus or ()), "cpu": gpu.cpu, "memory": gpu.memory_mib, "timeout": gpu.timeout,
    "startup": gpu.startup_timeout, "retries": gpu.max_retries,
    "volumes": {path: [v.name, v.read_only] for path, v in gpu.volumes.items()},
    "methods": gpu.method_names,
    "web_gpus": list(web.gpus or ()), "web_volumes": list(web.volumes or ()),
    "unauthenticated": web.web_info.unauthenticated,
    "concurrency": web.concurrency_info.max_inputs,
}, default=str))
"""


def describe(**variables: str) -> dict[str, Any]:
    """The module imported in a process of its own, with these settings, without account or network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRELLIS2_", "MODAL_"))}
    environment = kept | {"HOME": "/nonexistent", "CUDA_VISIBLE_DEVICES": ""} | variables
    code = "import socket\ndef no(*a, **k): raise AssertionError('the network was asked')\n"
    code += "socket.socket.connect = socket.create_connection = no\n" + DESCRIBE
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_module_defines_what_the_settings_say() -> None:
    found = describe()
    assert found["app"] == "trellis2"
    assert found["gpus"] == [["A100-80GB", 1]]
    assert (found["cpu"], found["memory"]) == (8.0, 49152)
    assert (found["timeout"], found["startup"], found["retries"]) == (1200, 1200, 1)
    assert found["volumes"] == {
        "/weights": ["trellis2-weights", True],
        "/kernels": ["trellis2-kernels", False],
    }
    assert found["methods"] == ["generate", "texture", "extract_glb", "health"]
    assert found["web_gpus"] == []
    assert found["web_volumes"] == []
    assert found["unauthenticated"] is True
    assert found["concurrency"] == 200
    assert found["modules"] == ["trellis2"]  # its errors and progress, without torch
    assert found["seconds"] < 5.0


def test_settings_of_the_environment_reach_the_definition() -> None:
    found = describe(
        TRELLIS2_APP="mine",
        TRELLIS2_GPU="H100",
        TRELLIS2_PROXY_AUTH="1",
        TRELLIS2_IMAGE="lean",
        TRELLIS2_GPU_MAX_ATTEMPTS="1",
    )
    assert (found["app"], found["gpus"], found["retries"]) == ("mine", [["H100", 1]], 0)
    assert found["unauthenticated"] is False


def test_a_deployment_without_gpu_asks_for_none() -> None:
    found = describe(TRELLIS2_GPU="none", TRELLIS2_IMAGE="lean", TRELLIS2_MODEL="bundled")
    assert found["gpus"] == []


def test_a_wrong_setting_names_its_variable() -> None:
    with pytest.raises(AssertionError, match="TRELLIS2_GPU='T4': choose one of A100"):
        describe(TRELLIS2_GPU="T4")


def test_class_options_are_plain_data() -> None:
    options = DeploySettings().gpu_class_options()
    assert options["enable_memory_snapshot"] is True
    assert options["gpu"] == "A100-80GB"
    assert options["min_containers"] == 0
    assert options["max_containers"] == 2
    assert options["scaledown_window"] == 120
    assert "gpu" not in DeploySettings().gateway_options()
    assert DeploySettings().gateway_options()["max_containers"] == 1
    settings = gateway_settings(DeploySettings(), {})
    assert settings.retention < 7 * 24 * 3600  # Modal drops results after a week
    assert settings.job_timeout == 1200
    assert settings.queue_limit == 16


def test_nobody_is_cut_off_before_the_last_of_a_full_queue_could_end() -> None:
    deploy = DeploySettings(gpu_max_containers=2, gpu_timeout=600, gpu_startup_timeout=300)
    settings = gateway_settings(deploy, {})
    assert settings.longest_wait(0) == 300 + 600  # a start, and what runs now
    assert settings.longest_wait(15) == 300 + 8 * 600
    assert deploy.gateway_options()["timeout"] >= settings.longest_wait(settings.queue_limit) + 600
    slow = DeploySettings(gpu_max_containers=1, gpu_timeout=12 * 3600)
    assert slow.gateway_options()["timeout"] == 24 * 3600  # the most that Modal takes


def test_importing_the_gpu_side_is_quick() -> None:
    code = (
        "import time; s = time.process_time(); import trellis2_modal.service.service, trellis2.pipelines,"
        " trellis2_modal.service.exporter; print(time.process_time() - s)"
    )
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "o-voxel")])},
            ).stdout
        )
        for _ in range(2)
    ]
    assert min(runs) <= 5.0, runs


# --- locally ------------------------------------------------------------------------------------------------


def test_every_method_of_the_class_runs_locally(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_checkpoint(tmp_path_factory.mktemp("weights"))
    monkeypatch.setenv("TRELLIS2_WEIGHTS", str(weights))
    instance = service.TRELLIS2Service()
    with pytest.warns(UserWarning, match="locally"):  # Modal says once that volumes are not mounted
        health = instance.health.local()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert health["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
        made = instance.generate.local(picture(96), STEPS | {"pipeline_type": "512", "preview": "none"})
        assert made["status"] in ("finished", "failed")
        assert set(made) >= {"seconds", "attempt", "finished"}
        gone = instance.extract_glb.local(None, {})
        assert gone["problem"]["type"] == ExpiredError.slug
        bad = instance.extract_glb.local(b"no state", {})
        assert bad["problem"]["type"] == "invalid-state"
        assert instance.health.local()["jobs"] == 3


def test_weights_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRELLIS2_WEIGHTS", str(tmp_path / "nothing"))
    with (
        pytest.warns(UserWarning, match="locally"),
        pytest.raises(Exception, match=r"no pipeline.json in .*nothing"),
    ):
        service.TRELLIS2Service().health.local()


def test_the_gateway_is_the_local_servers_app() -> None:
    app = service.web.local()
    client = TestClient(app, raise_server_exceptions=False)  # no lifespan: nothing is asked of Modal
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/generate", "/extract_glb", "/jobs", "/jobs/{job_id}", "/health", "/usage"} <= set(paths)
    assert client.get("/health").json()["status"] == "starting"
    assert (
        client.get("/", headers={"Origin": "https://elsewhere.example"}).headers.get(
            "access-control-allow-origin"
        )
        is None
    )


# --- in a container -----------------------------------------------------------------------------------------


class Container:
    """What a container is to the class: `modal.is_local()` is false, calls have ids."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stopped = 0
        monkeypatch.setattr(modal, "is_local", lambda: False)
        monkeypatch.setattr(modal, "current_function_call_id", lambda: "fc-7")
        monkeypatch.setattr(modal.experimental, "stop_fetching_inputs", self._stop)
        monkeypatch.setattr(service, "log_as_json", lambda: None)
        monkeypatch.setattr(service, "progress", None)

    def _stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Container:
    return Container(monkeypatch)


def test_half_downloaded_weights_end_the_container_with_what_to_run(container: Container) -> None:
    with pytest.raises(
        WeightsError,
        match=r"run: modal run -m trellis2_modal\.service\.deploy\.weights\.download::download_weights",
    ):
        service.open_host()


def test_bundled_weights_need_no_volume(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SETTINGS", DeploySettings(model=BUNDLED_MODEL))
    assert service.open_host().folder == BUNDLED_WEIGHTS


def test_a_lost_device_retires_the_container(container: Container) -> None:
    host = model_host.ModelHost(DeploySettings(), Path("nowhere"), "cpu")
    host._generator = HostedFake(step_seconds=0.0)  # type: ignore[assignment]
    started = SimpleNamespace(host=host, refusal=lambda: None)
    with pytest.raises(DeviceLostError):
        service.run_call(started, "generate", {"seed": fake.DEVICE_LOST, "preview": "none"}, picture)
    assert container.stopped == 1
    assert service.run_call(started, "generate", {"preview": "none"}, picture)["status"] == "finished"
    assert container.stopped == 1


@pytest.mark.parametrize("failure", ["OutputExpiredError", "NotFoundError"])
def test_a_source_that_modal_dropped_is_expired(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    class Gone:
        def get(self, timeout: float) -> Any:
            raise getattr(modal.exception, failure)("gone")

    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda call: Gone())
    with pytest.raises(ExpiredError):
        service.state_of_call("fc-1")


def test_the_state_of_an_earlier_call_is_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        def get(self, timeout: float) -> Any:
            return {"status": "finished", "files": {"state": {"data": b"state", "media_type": "x"}}}

    monkeypatch.setattr(modal.FunctionCall, "from_id", lambda call: Kept())
    assert service.state_of_call("fc-1") == b"state"
