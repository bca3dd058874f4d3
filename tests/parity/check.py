"""What a parity check returns, and how files find their check."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """One compared quantity: the largest error seen and the tolerance it must stay within."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.tolerance)  # NaN fails


Check = Callable[[Path], list[Comparison]]
_CHECKS: dict[str, Check] = {}


def check(*patterns: str) -> Callable[[Check], Check]:
    """Register a check for the files whose path (`models/x.npz`) matches one of the glob patterns."""

    def register(function: Check) -> Check:
        for pattern in patterns:
            _CHECKS[pattern] = function
        return function

    return register


def find_check(relative: str) -> Check | None:
    """The check whose pattern matches; an exact name wins over a glob."""
    if relative in _CHECKS:
        return _CHECKS[relative]
    return next((c for pattern, c in _CHECKS.items() if fnmatch.fnmatch(relative, pattern)), None)


def relative_l2(name: str, ours: np.ndarray, reference: np.ndarray, tolerance: float = 1e-4) -> Comparison:
    """‖ours − reference‖ / ‖reference‖ in float64; infinite when the shapes disagree."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        return Comparison(f"{name} {ours.shape} vs {reference.shape}", float("inf"), tolerance)
    norm = float(np.linalg.norm(reference))
    return Comparison(name, float(np.linalg.norm(ours - reference)) / max(norm, 1e-30), tolerance)


def exact(name: str, ours: np.ndarray, reference: np.ndarray) -> Comparison:
    """The number of unequal entries, which must be zero; infinite when the shapes disagree."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    if ours.shape != reference.shape:
        return Comparison(f"{name} {ours.shape} vs {reference.shape}", float("inf"), 0.0)
    return Comparison(name, float(np.count_nonzero(ours != reference)), 0.0)
