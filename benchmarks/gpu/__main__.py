"""`python -m benchmarks.gpu [--sections a,b] [--only REGEX] [--budget SECONDS] [--json PATH]`

Measures, writes, prints.

Ends with code 1 when a section failed, 0 when all ran or there is no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "o-voxel")]


def main() -> int:
    import torch

    from benchmarks.gpu.session import RESULTS, SECTIONS, Session

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated, in this order")
    parser.add_argument("--budget", type=float, default=float("inf"), help="start no section after so long")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--only", default="", help="parts of sections whose names this expression finds")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: GPU benchmarks skipped")
        return 0
    names = [name for name in options.sections.split(",") if name]
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        parser.error(f"unknown sections {', '.join(unknown)}; known: {', '.join(SECTIONS)}")
    session = Session(names, options.budget, options.json, options.only)
    session.run_all()
    session.write()
    if options.json == RESULTS:
        from benchmarks.__main__ import write_results

        write_results(RESULTS.parent)
    print(session.table())
    return 1 if session.failures else 0


if __name__ == "__main__":
    sys.exit(main())
