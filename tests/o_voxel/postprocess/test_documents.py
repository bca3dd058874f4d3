"""The README's code runs as printed, from top to bottom; so do the example scripts."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

trimesh = pytest.importorskip("trimesh")

ROOT = Path(__file__).parents[3] / "o-voxel"


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "o-voxel/README.md", "exec"), names)
    written = {path.suffix for path in tmp_path.iterdir()}
    assert {".glb", ".obj", ".mtl", ".stl", ".ply"} <= written


@pytest.mark.parametrize(
    ("script", "output", "options"),
    [
        ("mesh_to_glb.py", "out.glb", ["--resolution", "48", "--faces", "5000", "--texture-size", "256"]),
        ("printable.py", "out.stl", ["--resolution", "48", "--faces", "2000"]),
    ],
)
def test_examples(
    script: str, output: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.stl", tmp_path / output
    trimesh.creation.torus(0.4, 0.15).export(source)
    monkeypatch.setattr(sys, "argv", [script, str(source), str(target), *options])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert len(trimesh.load(target, force="mesh").faces) > 500
