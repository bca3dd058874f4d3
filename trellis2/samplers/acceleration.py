"""Sampling with fewer passes of an unchanged network: which steps compute, and what the others use instead.

The conditional velocity and the guidance term g = v_cond - v_null are forecast apart: the guided velocity
jumps where guidance ends, its parts do not (at the published strength a joint forecast is five times worse).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InvalidArgumentError
from .flow import Interval, Latent, strength_at

QUALITIES = ("exact", "fast")
FEWEST_STEPS = 8  # runs with fewer have no step to spare


def check_quality(quality: str) -> None:
    """Raise `InvalidArgumentError` for an unknown one."""
    if quality not in QUALITIES:
        raise InvalidArgumentError(f"quality {quality!r} is none of {', '.join(QUALITIES)}")


def forecast_steps(
    quality: str, times: Sequence[float], strength: float = 1.0, interval: Interval = (0.0, 1.0)
) -> frozenset[int]:
    """The steps over `times` (noise first, the final 0 last) whose velocities are forecast; none for "exact".

    "fast" leaves out every other step between the first quarter, which sets the object's layout, and the
    last step; the first and the last guided step are always computed. Of the published 12 steps these are 4,
    6, 8, 10 (structure, texture) and 3, 5, 7, 9 (shape).
    """
    check_quality(quality)
    steps = len(times) - 1
    if quality == "exact" or steps < FEWEST_STEPS:
        return frozenset()
    guided = [i for i, t in enumerate(times[:-1]) if strength_at(t, strength, interval) != 1.0]
    anchor = guided[-1] if guided else steps - 1
    first = max(3, steps // 4)
    return frozenset(i for i in range(first, steps - 1) if (i - anchor) % 2 and i not in guided[:1])


@dataclass
class Passes:
    """How often the network ran in one stage, and how often a step did without; `fp8` of its runs had their
    large products in 8 bits.
    """

    conditional: int = 0
    null: int = 0
    forecast: int = 0
    fp8: int = 0


@dataclass
class VelocityHistory:
    """What computed steps leave to those that are forecast."""

    computed: list[tuple[float, Latent]] = field(default_factory=list)  # the last two: time, v_cond
    guidance: Latent | None = None  # the last v_cond - v_null

    def add(self, t: float, v_cond: Latent, v_null: Latent | None = None) -> None:
        self.computed = [*self.computed[-1:], (t, v_cond)]
        if v_null is not None:
            self.guidance = v_cond - v_null

    def conditional(self, t: float) -> Latent:
        """v_cond at `t`, linear in time through the last two computed ones."""
        (t0, v0), (t1, v1) = self.computed[0], self.computed[-1]
        return v1 if t0 == t1 else v1 + ((t - t1) / (t1 - t0)) * (v1 - v0)

    def guided(self, v_cond: Latent, strength: float) -> Latent:
        """`v_cond` with the last guidance term: v_cond + (s - 1) g."""
        if strength == 1.0 or self.guidance is None:
            return v_cond
        return v_cond + (strength - 1) * self.guidance
