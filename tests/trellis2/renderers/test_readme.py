"""The README's code runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "trellis2" / "renderers" / "README.md"


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S):
        exec(compile(block, str(README), "exec"), names)
    assert (tmp_path / "preview.mp4").stat().st_size > 500
    assert {"shaded", "clay", "depth", "normal"} <= set(names["views"])  # type: ignore[call-overload]
