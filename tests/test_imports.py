"""Importing anything touches no GPU, and the client's side pulls in neither torch nor the model."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "trellis2": ROOT,
    "trellis2_modal": ROOT,
    "trellis2_pictures": ROOT,
    "o_voxel": ROOT / "o-voxel",
    "trellis2_training": ROOT / "training",
}
# A module that holds the adapter or the kernels of an optional package may need it to be importable.
OPTIONAL = {"triton", "flash_attn", "flex_gemm", "cumesh", "nvdiffrast", "nvdiffrec_render"}


def python(code: str, *arguments: str) -> Any:
    """What the code prints last, as JSON, from a fresh interpreter that sees no CUDA device."""
    path = os.pathsep.join(str(p) for p in dict.fromkeys(PACKAGES.values()))
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def modules() -> dict[str, Path]:
    """Every module and its file; a package's __main__ is the program itself, importing it would run it."""
    found = {}
    for package, parent in PACKAGES.items():
        for file in sorted((parent / package).rglob("*.py")):
            parts = file.relative_to(parent).with_suffix("").parts
            if parts[-1] != "__main__":
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, files: dict[str, Path]) -> set[str]:
    """The modules among `files` that a module imports, at its top or inside a function (not for types)."""
    package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    tree = ast.parse(files[name].read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if ast.unparse(node).split("\n")[0] != "if TYPE_CHECKING:"]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= {member if member in files else base for member in members}
    return found & files.keys() - {name}


IMPORT_ALL = """
import importlib, json, sys, traceback
import torch
def touched(*args, **kwargs):
    raise AssertionError("CUDA was initialised at import")
torch.cuda._lazy_init = touched
faults = {}
for name in sys.argv[2:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in sys.argv[1].split(","):
            faults[name] = traceback.format_exc()
    except BaseException:
        faults[name] = traceback.format_exc()
print()
print(json.dumps({"faults": faults, "initialised": torch.cuda.is_initialized()}))
"""


def test_every_module_imports_without_touching_cuda() -> None:
    names = modules()
    assert {"trellis2.models.flow", "o_voxel.errors", "trellis2_modal"} <= set(names)
    result = python(IMPORT_ALL, ",".join(sorted(OPTIONAL)), *names)
    assert result == {"faults": {}, "initialised": False}, "\n".join(result["faults"].values())


def test_no_circle_of_imports() -> None:
    """Not even one that an import inside a function hides: then no module can be read on its own."""
    files = modules()
    graph = {name: imports(name, files) for name in files}
    assert "o_voxel.errors" in graph["o_voxel.io.npz"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_importing_trellis2_is_quick() -> None:
    code = "import time; s = time.process_time(); import trellis2; print(time.process_time() - s)"
    assert python(code) <= 3.0


@pytest.mark.parametrize(
    "module", ["trellis2_modal", "trellis2_modal.protocol", "trellis2_modal.client", "trellis2_pictures"]
)
def test_the_clients_side_needs_neither_torch_nor_the_model(module: str) -> None:
    code = (
        "import importlib, json, sys; importlib.import_module(sys.argv[1]);"
        "print(json.dumps(sorted({'torch', 'trellis2', 'o_voxel', 'warp'} & set(sys.modules))))"
    )
    assert python(code, module) == []


BELOW = {
    "o_voxel": ("trellis2", "trellis2_modal", "trellis2_training"),
    "trellis2": ("trellis2_modal", "trellis2_training"),
    "trellis2_modal.protocol": tuple(
        f"trellis2_modal.{room}" for room in ("jobs", "service", "client", "cli")
    ),
    "trellis2_modal.jobs": tuple(f"trellis2_modal.{room}" for room in ("service", "client", "cli")),
    "trellis2_modal.service": ("trellis2_modal.client", "trellis2_modal.cli"),
    "trellis2_modal.client": ("trellis2_modal.service", "trellis2_modal.cli", "trellis2", "o_voxel", "torch"),
}
"""Packages, and what none of their modules may import, be it inside a function."""


def imported(name: str, file: Path) -> set[str]:
    """The absolute names of all modules that a file imports, wherever in it."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", BELOW)
def test_imports_go_one_way(package: str) -> None:
    root = PACKAGES[package.partition(".")[0]]
    faults = []
    for name in modules():
        if not (name + ".").startswith(package + "."):
            continue
        file = root / (name.replace(".", "/") + ".py")
        file = file if file.exists() else root / name.replace(".", "/") / "__init__.py"
        faults += [
            f"{name} imports {other}"
            for other in imported(name, file)
            if any((other + ".").startswith(above + ".") for above in BELOW[package])
        ]
    assert faults == []
