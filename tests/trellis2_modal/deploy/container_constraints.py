"""`python -m tests.trellis2_modal.deploy.container_constraints`:
the containers' packages, resolved anew with uv.

Needs `uv` on the path and a package index. Versions that constraints.txt has are kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from trellis2_modal.service.deploy import image_requirements as pins

ROOT = Path(__file__).parents[3]
TARGET = ROOT / "trellis2_modal" / "service" / "deploy" / "constraints.txt"
LEFT_OUT = re.compile(r"(torch|torchvision|triton|sympy|setuptools|cuda-toolkit|nvidia-[\w-]+)==")
PLATFORM = ("--python-version", pins.PYTHON, "--python-platform", "x86_64-manylinux_2_28")


def resolve(packages: tuple[str, ...], constraints: list[str]) -> list[str]:
    """`name==version` of packages and all that they need. Raises CalledProcessError when they do not fit."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, kept = Path(folder, "wanted.in"), Path(folder, "kept.txt")
        wanted.write_text("\n".join(packages))
        kept.write_text("\n".join(line for line in constraints if not LEFT_OUT.match(line)))
        command = [
            "uv",
            "pip",
            "compile",
            wanted,
            "-c",
            kept,
            *PLATFORM,
            "--no-annotate",
            "--no-header",
            "-q",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.split()


def main() -> int:
    everything = (
        *pins.GATEWAY_PACKAGES,
        *pins.MODEL_PACKAGES,
        *pins.REMOVER_PACKAGES,
        *pins.DOWNLOAD_PACKAGES,
    )
    known = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and ";" not in line and not line.startswith("modal==")
    ]
    found = resolve((*everything, *pins.TORCH), known)
    head = [line for line in TARGET.read_text().splitlines() if line.startswith("#")]
    locked = [line for line in found if not LEFT_OUT.match(line)]
    resolve((*everything, *pins.FULL_TORCH), locked)  # the full image takes the same versions
    TARGET.write_text("\n".join([*head, *locked]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
