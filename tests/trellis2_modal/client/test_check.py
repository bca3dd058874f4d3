"""`trellis2-modal check` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from trellis2_modal.cli import main
from trellis2_modal.cli.exits import Exit

trimesh = pytest.importorskip("trimesh")


def test_verdicts_words_and_codes(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.glb", tmp_path / "bad.stl"
    box = trimesh.creation.box((1, 2, 3))
    box.export(good)
    box.update_faces(np.arange(12) > 1)
    box.export(bad)
    found = CliRunner().invoke(main, ["check", str(good)])
    assert found.exit_code == Exit.DONE, found.output
    assert "good.glb: sound" in found.output
    assert "size 1 x 2 x 3 m" in found.output
    assert "a closed solid of 6 m³" in found.output
    found = CliRunner().invoke(main, ["check", str(good), str(bad)])
    assert found.exit_code == Exit.UNSOUND
    assert "FAULT  not closed: 4 open edges" in found.output
    found = CliRunner().invoke(main, ["check", "--json", str(bad)])
    document = json.loads(found.stdout)["files"][0]
    assert (document["sound"], document["unit"], document["mesh"]["open_edges"]) == (False, "mm", 4)
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"nothing")
    found = CliRunner().invoke(main, ["check", str(broken), str(good)])
    assert found.exit_code == Exit.INPUT
    assert "good.glb: sound" in found.output
    assert "not a GLB" in found.output
