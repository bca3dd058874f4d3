"""The real `modal` command against an emulated control plane: by path and by module, and what goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.trellis2_modal.deploy.control_plane import ControlPlane, control_plane, run_modal
from trellis2_modal.service.config import DeploySettings, SettingsError

SERVICE, IMAGE = "trellis2_modal.service.service", "trellis2_modal.service.image"
WEIGHTS = "trellis2_modal.service.deploy.weights.download"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with control_plane() as made:
        yield made


def as_path(module: str) -> str:
    return module.replace(".", "/") + ".py"


def defined(plane: ControlPlane) -> set[tuple[str, str]]:
    created = plane.requests("FunctionCreate")
    functions = [
        r.function_data if r.HasField("function_data") and r.function_data.module_name else r.function
        for r in created
    ]
    return {(function.module_name, function.function_name) for function in functions}


@pytest.mark.parametrize("reference", [("-m", SERVICE), (as_path(SERVICE),)], ids=["module", "path"])
def test_deploy(plane: ControlPlane, reference: tuple[str, ...]) -> None:
    """Either way containers import the package's module, and get the whole package."""
    done = run_modal(plane, "deploy", *reference)
    assert done.returncode == 0, done.stdout + done.stderr
    assert defined(plane) == {(SERVICE, "web"), (SERVICE, "TRELLIS2Service.*")}
    assert "PythonPackage:trellis2_modal" in done.stdout
    assert plane.requests("AppPublish")


@pytest.mark.parametrize(
    ("module", "function", "by"),
    [
        (IMAGE, "verify_image", "module"),
        (WEIGHTS, "download_weights", "path"),
    ],
)
def test_run(plane: ControlPlane, module: str, function: str, by: str) -> None:
    reference = ("-m", f"{module}::{function}") if by == "module" else (f"{as_path(module)}::{function}",)
    done = run_modal(plane, "run", *reference, TRELLIS2_MODEL="bundled")
    assert done.returncode == 0, done.stdout + done.stderr
    assert defined(plane) == {(module, function)}
    assert plane.requests("FunctionMap")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRELLIS2_GPU", "T4", "TRELLIS2_GPU='T4': choose one of A100, "),
        (
            "TRELLIS2_QUEUE_LIMIT",
            "many",
            "TRELLIS2_QUEUE_LIMIT='many' is not ",
        ),  # the containers would read it
    ],
)
def test_a_wrong_setting_is_one_line(plane: ControlPlane, name: str, value: str, said: str) -> None:
    done = run_modal(plane, "deploy", as_path(SERVICE), **{name: value})
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert line.startswith(said)
    assert not plane.calls


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"IMAGE": "fat"}, "TRELLIS2_IMAGE='fat': choose one of lean, full"),
        ({"LOADING": "lazy"}, "TRELLIS2_LOADING='lazy': choose one of snapshot, stream, gpu_snapshot"),
        ({"LOADING": "gpu_snapshot", "GPU": "none"}, "TRELLIS2_LOADING='gpu_snapshot': needs a GPU"),
        ({"IMAGE": "full", "GPU": "B200"}, "TRELLIS2_GPU='B200': needs TRELLIS2_IMAGE=lean"),
        ({"IMAGE": "full", "GPU": "none"}, "TRELLIS2_GPU='none': needs TRELLIS2_IMAGE=lean"),
        ({"GPU_TIMEOUT": "soon"}, "TRELLIS2_GPU_TIMEOUT='soon' is not of type int"),
        ({"GPU_CPU": "nan"}, "TRELLIS2_GPU_CPU=nan: choose a number from 0.125 to 64"),
        ({"GPU_SCALEDOWN_WINDOW": "7200"}, "SCALEDOWN_WINDOW=7200: choose a number from 2 to 3600"),
        ({"GATEWAY_MIN_CONTAINERS": "2"}, "is above TRELLIS2_GATEWAY_MAX_CONTAINERS"),
    ],
)
def test_what_modal_would_refuse_is_refused_before(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        DeploySettings.from_env({f"TRELLIS2_{name}": value for name, value in settings.items()})
