"""Which implementation each operation uses on a device, and why.

Every operation has a portable implementation, and the automatic choice takes it on every device: on an H200
`to_glb` takes 1.0 s with it and 2.6 s with the packages. A variable (`MESH_BACKEND=cumesh`) forces a package,
and raises `BackendError` where it cannot serve. Nothing is imported before an operation asks.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .errors import ArgumentError, BackendError

PORTABLE = "portable"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operation:
    """An operation with a twin in a package: the variable that forces one, and the twin's module."""

    name: str
    variable: str
    package: str
    module: str
    install: str


@dataclass(frozen=True)
class Choice:
    """What an operation uses (`portable` or a package's name) and the reason, for people to read."""

    operation: str
    backend: str
    reason: str

    @property
    def portable(self) -> bool:
        return self.backend == PORTABLE


OPERATIONS = {
    o.name: o
    for o in (
        Operation("mesh", "MESH_BACKEND", "cumesh", "cumesh", "https://github.com/JeffreyXiang/CuMesh"),
        Operation(
            "raster",
            "RASTER_BACKEND",
            "nvdiffrast",
            "nvdiffrast.torch",
            "https://github.com/NVlabs/nvdiffrast",
        ),
        Operation(
            "sampling",
            "SAMPLING_BACKEND",
            "flex_gemm",
            "flex_gemm.ops.grid_sample",
            "https://github.com/JeffreyXiang/FlexGEMM",
        ),
    )
}


def pick(operation: str, device: torch.device | str) -> Choice:
    """Choose the implementation of `mesh`, `raster` or `sampling` for tensors on a device.

    Raises:
        ArgumentError: an unknown operation, or a variable set to a name that it does not have.
        BackendError: the forced package is not installed, does not load, or the device is not CUDA.
    """
    if operation not in OPERATIONS:
        raise ArgumentError(f"unknown operation {operation!r}: one of {', '.join(OPERATIONS)}")
    spec = OPERATIONS[operation]
    device = torch.device(device)
    forced = os.environ.get(spec.variable, "")
    if forced not in ("", "auto", PORTABLE, spec.package):
        raise ArgumentError(f"{spec.variable}={forced}: use {spec.package}, {PORTABLE} or auto")
    if forced == PORTABLE:
        return Choice(operation, PORTABLE, f"{spec.variable}={PORTABLE}")
    if forced != spec.package:
        return Choice(operation, PORTABLE, f"faster than {spec.package} where both were measured (H200)")
    if problem := _problem(spec, device):
        raise BackendError(f"{spec.variable}={forced}, but {problem} ({spec.install})")
    return Choice(operation, spec.package, f"{spec.variable}={forced}")


def describe(device: torch.device | str) -> list[Choice]:
    """One row an operation: what is used and why; `unavailable` where a forced choice cannot be met."""
    return described({name: functools.partial(pick, name, device) for name in OPERATIONS})


def described(
    picks: Mapping[str, Callable[[], Choice]],
    refusals: tuple[type[Exception], ...] = (ArgumentError, BackendError),
) -> list[Choice]:
    """What each pick gives, or a row `unavailable` with the reason why it refuses."""
    rows = []
    for operation, choose in picks.items():
        try:
            rows.append(choose())
        except refusals as error:
            rows.append(Choice(operation, "unavailable", str(error)))
    return rows


def _problem(spec: Operation, device: torch.device) -> str:
    """Why the package cannot serve the device, or an empty string."""
    if device.type != "cuda":
        return f"{spec.package} needs CUDA tensors and the device is {device.type}"
    return load_problem(spec.module, spec.package)


@functools.cache
def load_problem(module: str, package: str) -> str:
    """Why a module does not load, or an empty string; asked once a process, only where a GPU is used."""
    if importlib.util.find_spec(module.split(".")[0]) is None:
        return f"{package} is not installed"
    try:
        importlib.import_module(module)
    except Exception as error:  # a compiled extension can fail in any way; the portable code then serves
        _log.warning("%s is installed but does not load: %s", package, error)
        return f"{package} is installed but does not load: {type(error).__name__}: {error}"
    return ""
