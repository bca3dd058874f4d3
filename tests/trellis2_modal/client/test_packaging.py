"""What a laptop gets: few dependencies, a light import, and the names that are promised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import trellis2_modal.client.api as api
from trellis2_modal.client import compression, errors
from trellis2_modal.protocol.errors import ServiceError

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "trellis2", "o_voxel", "gradio", "fastapi", "uvicorn", "cv2", "PIL", "warp", "modal"}
LIGHT = """
import sys, time
begin = time.process_time()
import asyncio, httpx, lz4.frame, numpy, pydantic, safetensors.numpy
needed = time.process_time()
import trellis2_modal.client
import trellis2_modal.client.api
import trellis2_modal.client.compression
import trellis2_modal.client.app
end = time.process_time()
print(needed - begin, end - begin, ",".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_requirements_equal_the_base_dependencies_and_the_app() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["app"]
    lines = (ROOT / "trellis2_modal" / "client" / "requirements.txt").read_text("utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == needed


def test_the_import_is_light() -> None:
    """At most 0.5 s where the packages that it needs take 0.25 s, as on two quiet server cores: the limit
    goes with the machine's speed. Processor time, the best of five, without numpy's spinning threads.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIGHT]
    spent = []
    for _ in range(5):
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        needed, whole, modules = run.stdout.split()
        assert not HEAVY & set(modules.split(","))
        spent.append((float(needed), float(whole)))
    needed_best, whole_best = (min(column) for column in zip(*spent, strict=True))
    assert whole_best <= 2 * needed_best


def test_the_whole_client_never_imports_the_model() -> None:
    code = """
import importlib, pkgutil, sys
import trellis2_modal.client as client
for module in pkgutil.walk_packages(client.__path__, client.__name__ + "."):
    importlib.import_module(module.name)
found = {name.partition(".")[0] for name in sys.modules}
assert not found & {"torch", "trellis2", "o_voxel", "cv2", "warp", "modal"}, found
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_what_the_documentation_imports_is_exported_and_described() -> None:
    pages = [ROOT / "trellis2_modal" / "docs" / "CLIENT.md", *(ROOT / "examples").iterdir()]
    text = "".join(page.read_text(encoding="utf-8") for page in pages if page.is_file())
    named = {
        name for found in re.findall(r"client\.api import ([\w, ]+)", text) for name in found.split(", ")
    }
    assert {"AsyncClient", "Client"} <= named <= set(api.__all__)
    for module in (api, compression):
        for name in module.__all__:
            assert getattr(module, name).__doc__, f"{name} has no docstring"


def test_both_clients_offer_the_same() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert public(api.Client) == public(api.AsyncClient)
    assert public(api.Job) == public(api.AsyncJob)


def test_one_tree_of_errors_drawn_in_the_docstring() -> None:
    drawn = re.findall(r"(\w+Error) ", errors.__doc__ or "")
    defined = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert set(drawn) == set(defined)
    for name in defined:
        assert issubclass(getattr(errors, name), ServiceError)


def test_tests_of_the_client_need_no_model() -> None:
    """They run where the packages of the gateway are installed, and none of the model's."""
    code = """
import sys
import tests.trellis2_modal.client.conftest
found = {name.partition(".")[0] for name in sys.modules}
of_the_model = {name for name in sys.modules if name.startswith("trellis2.")}
assert of_the_model <= {"trellis2.errors", "trellis2.progress"}, of_the_model
assert not found & {"torch", "o_voxel", "cv2", "warp"}, found
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)
