"""The viewer's three.js: one file in the package, which is what its recipe makes of the locked version."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from trellis2_modal.client.app.file_routes import STATIC

NODE = Path(__file__).parents[2] / "node"
ESBUILD = NODE / "node_modules" / "esbuild"


@pytest.mark.node
@pytest.mark.skipif(
    shutil.which("npm") is None or not ESBUILD.exists(), reason="needs node, and `npm ci` in tests/node"
)
def test_the_bundle_is_what_its_recipe_makes(tmp_path: Path) -> None:
    made = tmp_path / "three.min.js"
    command = ["npm", "run", "--silent", "--prefix", NODE, "bundle-three", "--", f"--outfile={made}"]
    subprocess.run(command, check=True, capture_output=True)
    kept = STATIC / made.name
    assert made.read_bytes() == kept.read_bytes(), "npm run --prefix tests/node bundle-three"


def test_the_bundle_says_whose_it_is_and_has_what_the_viewer_takes() -> None:
    bundle = (STATIC / "three.min.js").read_text()
    assert "SPDX-License-Identifier: MIT" in bundle
    exported = set(re.findall(r"as (\w+)", bundle[bundle.rindex("export{") :].partition("}")[0]))
    taken = set(re.findall(r"\bT\.(\w+)", (STATIC / "viewer.js").read_text()))
    assert taken == exported
