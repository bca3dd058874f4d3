"""`python -m tests.parity [folder]`: one line a golden file with its largest error; exits 1 on any miss."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from .check import Comparison, find_check

CHECK_MODULES = ("models", "pipeline", "geometry", "pixal")
AUXILIARY = {"manifest.json"}


def load_checks() -> None:
    for name in CHECK_MODULES:
        importlib.import_module(f"{__package__}.{name}")


def golden_files(folder: Path) -> list[str]:
    """Paths relative to the folder of every golden file, sorted."""
    kinds = ("models", "geometry", "pixal")
    found = (p for kind in kinds for p in (folder / kind).glob("*") if p.name not in AUXILIARY)
    return sorted(p.relative_to(folder).as_posix() for p in found)


def worst(comparisons: list[Comparison]) -> Comparison:
    """The comparison furthest over (or closest to) its tolerance."""
    return max(comparisons, key=lambda c: (not c.ok, c.error / c.tolerance if c.tolerance else c.error))


def main(folder: Path) -> int:
    load_checks()
    files = golden_files(folder)
    if not files:
        print(f"no golden files under {folder}/models, geometry or pixal")
        return 2
    misses = 0
    for relative in files:
        run = find_check(relative)
        if run is None:
            misses += 1
            print(f"MISS {relative:44} no check knows this file")
            continue
        comparisons = run(folder / relative)
        bad = [c for c in comparisons if not c.ok]
        misses += bool(bad)
        top = worst(comparisons)
        print(
            f"{'MISS' if bad else 'ok  '} {relative:44} {top.error:9.2e} "
            f"(limit {top.tolerance:7.1e}, {top.name})"
            f"  {len(comparisons)} compared"
        )
    print(f"{len(files) - misses} of {len(files)} files agree")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("tests/golden")))
