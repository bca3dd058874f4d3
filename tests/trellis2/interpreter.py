"""Kernel modules on the device of a test: compiled on CUDA, in Triton's interpreter on a CPU."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

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
    return importlib.import_module(module)
