"""A client generated from /openapi.json compiles, and its functions work against the server."""

from __future__ import annotations

import base64
import compileall
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.trellis2_modal.server import Running, picture

pytest.importorskip("openapi_python_client", reason="needs the dev extra")


@pytest.fixture(scope="module")
def generated(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the generated package `generated_client`."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(httpx.get(server.url + "/openapi.json").text)
    command = ["generate", "--path", "openapi.json", "--output-path", "generated_client", "--meta", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--fail-on-warning"],
        cwd=folder,
        # it formats with the ruff beside this Python, which need not be on the PATH
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sys.path.insert(0, str(folder))
    yield folder / "generated_client"
    sys.path.remove(str(folder))


def function(tag: str, name: str) -> Any:
    return importlib.import_module(f"generated_client.api.{tag}.{name}")


def test_every_operation_becomes_a_function(server: Running, generated: Path) -> None:
    assert compileall.compile_dir(generated, quiet=1)
    document = httpx.get(server.url + "/openapi.json").json()
    operations = [
        (operation["tags"][0], operation["operationId"])
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len({name for _, name in operations}) == len(operations) >= 12
    for tag, name in operations:
        assert function(tag, name).sync_detailed


def test_its_functions_work(server: Running, generated: Path) -> None:
    package: Any = importlib.import_module("generated_client")
    client = package.AuthenticatedClient(
        base_url=server.url, token=server.key, auth_header_name="X-API-Key", prefix=""
    )
    with client:
        assert function("service", "health").sync(client=client).status == "ok"
        assert function("service", "usage").sync(client=client).name == "tests"
        assert function("jobs", "list_jobs").sync(client=client, limit=5).jobs is not None


def test_the_alias_is_the_generation(server: Running) -> None:
    body = {"image": base64.b64encode(picture()).decode(), "seed": 7, "preview": "none"}
    with server.client() as client:
        model = client.get("/health").json()["model"]
        made = client.post("/v1/3d/generations", json=body | {"model": model})
        assert made.status_code == 200, made.text
        assert made.json()["state"] == client.post("/generate", json=body).json()["state"]
        queued = client.post("/v1/3d/generations", json=body, headers={"Prefer": "respond-async"})
        assert client.get(f"/v1/3d/{queued.headers['location']}").status_code == 200
        other = client.post("/v1/3d/generations", json=body | {"model": "gpt-image"})
    assert other.status_code == 400
    assert json.loads(other.text)["errors"][0]["field"] == "model"
