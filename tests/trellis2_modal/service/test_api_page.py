"""docs/API.md: its tables are the protocol's, its commands work, and it leaves no call out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import trellis2_modal
from tests.trellis2_modal.meshes import mesh_glb
from tests.trellis2_modal.server import MATTE, Running, picture, running
from trellis2_modal.client.compression import load_state
from trellis2_modal.protocol import tables
from trellis2_modal.protocol.requests import ExtractSettings, GenerateSettings, TextureSettings
from trellis2_modal.service.http.pictures.matte import MatteProcess

PAGE = Path(trellis2_modal.__file__).parent / "docs" / "API.md"
TABLES: dict[str, Callable[[], str]] = {
    "errors": tables.errors_table,
    "generate": lambda: tables.fields_table(GenerateSettings),
    "texture": lambda: tables.fields_table(TextureSettings),
    "extract": lambda: tables.fields_table(ExtractSettings),
    "presets": tables.presets_table,
    "limits": tables.limits_table,
}


def with_tables(page: str) -> str:
    """The page with every table made anew."""
    for name, make in TABLES.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = place.subn(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", page)  # type: ignore[misc]
        assert count == 1, name
    return page


def commands(page: str) -> str:
    return "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data"), matter=MatteProcess(MATTE), metrics=True) as live:
        yield live


def test_the_tables_are_those_of_the_protocol() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "write them anew: python -m tests.trellis2_modal.service.test_api_page"


def test_no_call_is_left_out(server: Running) -> None:
    called = re.sub(
        r"\$(JOB|FIRST|EXTRACTION|TEXTURED|VARIANTS)", "{job_id}", commands(PAGE.read_text(encoding="utf-8"))
    )
    called = re.sub(r"\{job_id\}/(state-2|state|video|preview|glb)\b", "{job_id}/{artifact}", called)
    for path, methods in httpx.get(server.url + "/openapi.json").json()["paths"].items():
        assert re.search(re.escape("$TRELLIS2_URL" + path) + r'["?]', called), path
        if "delete" in methods:
            assert f'-X DELETE "$TRELLIS2_URL{path}"' in called


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl")
def test_every_command_works(server: Running, tmp_path: Path) -> None:
    for name in ("photo.png", "back.png"):
        (tmp_path / name).write_bytes(picture(128))
    (tmp_path / "chair.glb").write_bytes(mesh_glb())
    script = "set -euxo pipefail\n" + commands(PAGE.read_text(encoding="utf-8"))
    env = os.environ | {"TRELLIS2_URL": server.url, "TRELLIS2_API_KEY": server.key}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "textured.glb").read_bytes() == mesh_glb()  # the fake generator paints nothing
    for name in ("second.glb", "asset.glb", "asset.stl", "mobile.glb"):
        assert (tmp_path / name).read_bytes()[:4] == b"glTF", (
            name
        )  # the fake generator writes GLB as any format
    state = (tmp_path / "asset.state.lz4").read_bytes()
    assert load_state(state).info == load_state((tmp_path / "again.state.lz4").read_bytes()).info
    assert (tmp_path / "start.bin").read_bytes() == (tmp_path / "turntable.mp4").read_bytes()
    assert (tmp_path / "matte.png").read_bytes()[1:4] == b"PNG"
    lines = done.stdout.splitlines()
    assert "304" in lines
    assert "event: result" in lines
    (answered,) = re.findall(r'\{"type": "invalid-request".*?\]\}', done.stdout)
    (shown,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert json.loads(answered) | {"request_id": ""} == json.loads(shown) | {"request_id": ""}


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
