"""Every golden file of the reference is reproduced; `python -m tests.parity` prints the same as a table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .parity.__main__ import CHECK_MODULES, golden_files
from .parity.check import find_check

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module", autouse=True)
def checks() -> None:
    for name in CHECK_MODULES:
        if importlib.util.find_spec(f"tests.parity.{name}"):
            importlib.import_module(f"tests.parity.{name}")


def test_golden_files_are_there() -> None:
    folders = {Path(name).parent.name for name in golden_files(GOLDEN)}
    assert folders == {"models", "geometry", "pixal"}


@pytest.mark.parametrize("name", golden_files(GOLDEN))
def test_golden_file(name: str) -> None:
    check = find_check(name)
    assert check is not None, f"no check knows {name}"
    comparisons = check(GOLDEN / name)
    assert comparisons
    misses = [c for c in comparisons if not c.ok]
    assert not misses, "\n".join(f"{c.name}: {c.error:.3e} > {c.tolerance:.1e}" for c in misses)
