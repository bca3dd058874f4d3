"""The client's page of documentation: its commands parse, its Python runs, its table is the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from tests.trellis2_modal.client.service import KEY, Service, asset, photo, state
from tests.trellis2_modal.meshes import mesh_glb
from trellis2_modal.cli import main
from trellis2_modal.cli.exits import MEANINGS, Exit
from trellis2_modal.client import api

DOCS = Path(__file__).parents[3] / "trellis2_modal" / "docs"
TEXT = (DOCS / "CLIENT.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("trellis2-modal ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the page speaks of."""
    for name in ("photo.png", "chair.png"):
        (tmp_path / name).write_bytes(photo())
    (tmp_path / "asset.glb").write_bytes(asset())
    (tmp_path / "chair.glb").write_bytes(mesh_glb())
    for name in ("asset.lz4", "shape.state.lz4"):
        (tmp_path / name).write_bytes(state())
    for name in ("pictures", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "list.csv").write_text("picture\nphoto.png\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_commands() -> None:
    named = {shlex.split(line)[1] for line in commands()}
    assert named >= {"app", "generate", "extract", "jobs", "usage", "health", "demo", "doctor"}


@pytest.mark.parametrize("line", commands())
def test_every_command_can_be_typed(folder: Path, line: str) -> None:
    command: click.Command = main
    context = click.Context(main)
    arguments = shlex.split(line, comments=True)[1:]
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, line
        command, arguments = found, arguments[1:]
    command.make_context(line, arguments)


@pytest.mark.parametrize("code", blocks("python"))
def test_every_example_runs(
    folder: Path,
    code: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for kind in (api.Client, api.AsyncClient):

        def make(url: str, key: str, kind: Any = kind, **options: Any) -> Any:
            return kind(url, KEY, transport=service.transport, **options)

        monkeypatch.setattr(api, kind.__name__, make)
    exec(compile(code, "CLIENT.md", "exec"), {"__name__": "example"})
    assert service.jobs()
    assert all(job.status == "finished" for job in service.jobs())


def test_the_table_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", TEXT, re.M)
    assert rows == [(str(int(code)), meaning) for code, meaning in MEANINGS.items()]
    assert set(MEANINGS) == set(Exit)


def test_every_picture_is_there_and_small() -> None:
    names = re.findall(r"!\[[^]]+\]\((images/[^)]+)\)", TEXT)
    assert names
    sizes = [(DOCS / name).stat().st_size for name in names]
    assert sum(sizes) < 1_500_000
