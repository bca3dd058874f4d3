"""Importing anything touches no GPU, and the client's side pulls in neither torch nor the model."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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
OPTIONAL = {"triton", "flash_attn", "flex_gemm", "cumesh", "nvdiffrast", "nvdiffrec_render", "mcp"}


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


def imported(name: str, file: Path, types: bool = True) -> Iterator[tuple[str, list[str]]]:
    """What a file imports, wherever in it: modules, and the full names of what it takes from each.

    Without `types`, what is imported for annotations alone is left out.
    """
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(file.read_text("utf-8"))
    if not types:
        tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            yield base, [f"{base}.{alias.name}" for alias in node.names]


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
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        needed = {
            m if m in files else base for base, ms in imported(name, file, types=False) for m in ms or [base]
        }
        graph[name] = needed & files.keys() - {name}
    assert "o_voxel.errors" in graph["o_voxel.io.npz"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_no_folder_has_more_modules_than_a_reader_takes_in() -> None:
    """Rooms with a subject each, `__init__` counted: where a sixteenth module comes in, make a room."""
    folders = Counter(str(file.parent.relative_to(ROOT)) for file in modules().values())
    assert folders["trellis2_modal/jobs"] > 1
    assert {folder: count for folder, count in folders.items() if count > 15} == {}


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


@pytest.mark.parametrize("package", BELOW)
def test_imports_go_one_way(package: str) -> None:
    faults = [
        f"{name} imports {other}"
        for name, file in modules().items()
        if (name + ".").startswith(package + ".")
        for base, members in imported(name, file)
        for other in (base, *members)
        if any((other + ".").startswith(above + ".") for above in BELOW[package])
    ]
    assert faults == []
