"""Kernel modules on the device of a test: compiled on CUDA, in Triton's interpreter on a CPU."""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def interpret_triton(module: str, device: str) -> ModuleType:
    """The module with the kernels; skips the test where Triton or the device is missing.

    Triton reads its switch when a kernel is defined, so a process either compiles or interprets.
    """
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cpu" and torch.cuda.is_available():
        pytest.skip("kernels are compiled in this process; the interpreter is for machines without CUDA")
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton defines its own library's functions
    pytest.importorskip("triton")
    if device == "cpu":
        _scalars_from_arrays_of_one()
    return importlib.import_module(module)


def _scalars_from_arrays_of_one() -> None:
    """Let the interpreter take loop bounds as `int(array)` from arrays of one axis, as NumPy 2.4 does not."""
    from triton.runtime import interpreter

    class AnyInt(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, int)

    class Integer(metaclass=AnyInt):
        def __new__(cls, value: Any = 0, *rest: Any) -> Any:
            return int(value.item() if isinstance(value, np.ndarray) else value, *rest)

    interpreter.int = Integer
