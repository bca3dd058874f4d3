"""axe-core over a page: what it finds that a person with a screen reader or weak eyes would meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parents[2] / "node" / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("moderate", "serious", "critical")


def findings(page: Any) -> list[str]:
    """One line for each element that a rule of moderate weight or more complains of."""
    if not AXE.exists():
        pytest.skip("axe-core is not there: npm ci --prefix tests/node")
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['impact']} {rule['id']}: {node['target']} {node['html'][:120]}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
