"""The files in other people's programs, where `TRELLIS2_VIEWERS` names Pythons that have them.

    python -m venv viewers && viewers/bin/pip install trimesh lxml networkx open3d pymeshlab usd-core lib3mf
    TRELLIS2_VIEWERS=viewers/bin/python python -m pytest tests/opening

Several Pythons are joined by the path separator (Blender's `bpy` wants one of its own).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from o_voxel.postprocess import GlbAsset, to_glb

from tests.o_voxel.postprocess.objects import decoded, sphere

PYTHONS = [name for name in os.environ.get("TRELLIS2_VIEWERS", "").split(os.pathsep) if name]
SCRIPT = Path(__file__).with_name("open_in.py")
pytestmark = pytest.mark.skipif(not PYTHONS, reason="TRELLIS2_VIEWERS names no Python with viewers")

TEXTURES = {"glb": 3, "usdz": 3, "obj": 4}
"""Pictures in each kind of file; OBJ keeps roughness and metalness apart."""
READS = {
    "trimesh": ("glb", "obj", "stl", "ply", "3mf"),
    "open3d": ("glb", "obj", "stl", "ply"),
    "pymeshlab": ("glb", "obj", "stl", "ply"),
    "bpy": ("glb", "obj", "usdz", "stl", "ply"),
    "pxr": ("usdz",),
    "lib3mf": ("3mf",),
}
FINDS_ONE_TEXTURE = {("trimesh", "obj"), ("pymeshlab", "glb"), ("pymeshlab", "obj")}
"""These programs have a colour texture and no others."""


@pytest.fixture(scope="module")
def asset() -> GlbAsset:
    return to_glb(
        **decoded(sphere(), 48),
        decimation_target=1500,
        texture_size=256,
        normal_map=True,
        texture_format="jpeg",
    )


def python_with(program: str) -> str:
    for python in PYTHONS:
        if not subprocess.run([python, "-c", f"import {program}"], capture_output=True).returncode:
            return python
    pytest.skip(f"no Python of TRELLIS2_VIEWERS has {program}")


@pytest.mark.parametrize("program", sorted(READS))
def test_a_program_opens_the_defaults(program: str, asset: GlbAsset, tmp_path: Path) -> None:
    python = python_with(program)
    files = [tmp_path / f"asset.{kind}" for kind in READS[program]]
    for file in files:
        asset.export(file)
    name = "usd" if program == "pxr" else program
    command = [python, str(SCRIPT), name, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"program"')]
    assert len(lines) == len(files), done.stderr
    for file, found in zip(files, lines, strict=True):
        check(program, file.suffix[1:], found, asset)


def check(program: str, kind: str, found: dict[str, Any], asset: GlbAsset) -> None:
    assert "error" not in found, found
    assert found["faces"] == asset.report.faces, found
    assert found.get("problems", []) == [], found
    if kind in TEXTURES:
        least = 1 if (program, kind) in FINDS_ONE_TEXTURE else TEXTURES[kind]
        assert found["textures"] >= least, found
    if program == "bpy" and kind in TEXTURES:
        assert found["normal_map"], found
    if program == "lib3mf":
        assert found["solid"], found
        assert max(found["size"]) == pytest.approx(100.0, rel=1e-3)
        assert found["colours"] > 1
