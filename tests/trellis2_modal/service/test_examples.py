"""Every file of examples/ does against a live server what it says."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.trellis2_modal.server import Running, picture
from trellis2_modal.client.compression import load_state

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def surroundings(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a picture in it, and an environment that names the server."""
    (tmp_path / "photo.png").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRELLIS2_URL", server.url)
    monkeypatch.setenv("TRELLIS2_API_KEY", server.key)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_listed() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    known = {"curl.sh", "one_call.py", "plain_requests.py", "python_client.py", "folder.py", "notebook.ipynb"}
    assert names == known | {"text_to_image.py"}
    assert [name for name in names if f"({name})" not in page] == []


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl")
def test_curl() -> None:
    command = ["bash", str(EXAMPLES / "curl.sh"), "photo.png", "asset.glb"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "event: result"
    assert Path("asset.glb").read_bytes()[:4] == b"glTF"


@pytest.mark.parametrize("name", ["plain_requests.py", "one_call.py", "python_client.py"])
def test_one_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "python_client.py":
        pytest.importorskip("requests")
    run(monkeypatch, name, "photo.png", "asset.glb")
    assert Path("asset.glb").read_bytes()[:4] == b"glTF"


def test_one_call_is_short() -> None:
    """From a photo to a file in at most ten lines."""
    lines = (EXAMPLES / "one_call.py").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines[1:] if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 10


def test_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, assets = Path("pictures"), Path("assets")
    pictures.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "notes.txt")):
        (pictures / name).write_bytes(picture(seed=seed))
    (pictures / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "folder.py", "pictures", "assets")
    assert ended.value.code == 1
    assert "broken.png" in capsys.readouterr().err
    assert sorted(path.name for path in assets.iterdir()) == ["a.glb", "b.glb"]
    (pictures / "broken.png").write_bytes(picture(seed=2))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "folder.py", "pictures", "assets")
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == [str(assets / "broken.glb")], "the others were there"


def test_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Handle:
        update = shown.append

    def display(what: Any, display_id: bool = False) -> Handle:
        shown.append(what)
        return Handle()

    stand_in = ModuleType("IPython.display")
    vars(stand_in).update(
        display=display, HTML=str, Image=lambda path, **_: path, Video=lambda path, **_: path
    )
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    monkeypatch.setenv("PICTURE", "photo.png")
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "cells are kept without what they showed"
            exec(compile("".join(cell["source"]), "notebook", "exec"), names)
    names["client"].close()
    assert shown[0] == Path("photo.png")
    assert any("step" in str(what) for what in shown)
    assert Path(shown[-1]).read_bytes()[4:8] == b"ftyp"
    assert Path("results/photo.glb").read_bytes()[:4] == b"glTF"
    assert len(load_state(Path("results/photo.state.lz4").read_bytes()).coords) > 0


def test_the_front_page(tmp_path: Path) -> None:
    page = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(code.strip().splitlines()) <= 6
    exec(compile(code, "README.md", "exec"), {})
    assert Path("photo.glb").read_bytes()[:4] == b"glTF"
    if not shutil.which("curl") or not shutil.which("bash"):
        pytest.skip("needs bash and curl")
    (script,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    done = subprocess.run(["bash", "-euc", script], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("one-call.glb").read_bytes()[:4] == b"glTF"
