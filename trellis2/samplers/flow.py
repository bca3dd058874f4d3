"""Flow matching with Euler steps, as pure functions in reading order.

Data sits at t = 0 and noise at t = 1 (σ = `sigma_min`):

    x_t = (1 − t)·x_0 + (σ + (1 − σ)·t)·ε        the path
    v   = dx/dt = (1 − σ)·ε − x_0                 what the network predicts

States are dense tensors `[B, C, X, Y, Z]` or sparse tensors (features `[T, C]`); every function takes either.
Times are python floats: the interval tests below sit on exact values such as 0.6, which single precision
would miss. Source: Lipman et al., "Flow Matching for Generative Modeling" (2023); Lin et al., "Common
Diffusion Noise Schedules and Sample Steps Are Flawed" (2024), section 3.4, for the rescaled guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from ..errors import InvalidArgumentError, NumericalError
from ..progress import Monitor

if TYPE_CHECKING:
    from ..sparse import SparseTensor

    Latent: TypeAlias = torch.Tensor | SparseTensor
else:
    Latent = Any

Velocity: TypeAlias = Callable[[Latent, float], Latent]
Interval: TypeAlias = tuple[float, float]


@dataclass
class SamplingResult:
    """What a sampler returns: the final state, and the state and the data estimate after each step."""

    samples: Any
    pred_x_t: list[Any] = field(default_factory=list)
    pred_x_0: list[Any] = field(default_factory=list)


def time_grid(steps: int, rescale_t: float = 1.0) -> list[float]:
    """The `steps + 1` times from 1 to 0, warped towards noise by `rescale_t` > 1, in double precision.

    t = r·u / (1 + (r − 1)·u) over an even grid u. Raises `InvalidArgumentError` for steps < 1 or a
    non-positive warp.
    """
    if isinstance(steps, bool) or int(steps) != steps or steps < 1:
        raise InvalidArgumentError(f"steps must be a whole number of at least 1, got {steps!r}")
    if not (math.isfinite(rescale_t) and rescale_t > 0):
        raise InvalidArgumentError(f"rescale_t must be a finite number above 0, got {rescale_t!r}")
    u = np.linspace(1.0, 0.0, int(steps) + 1, dtype=np.float64)
    return [float(t) for t in rescale_t * u / (1 + (rescale_t - 1) * u)]


def noise_scale(t: float, sigma_min: float) -> float:
    """How much noise the path carries at time t: σ + (1 − σ)·t."""
    return sigma_min + (1 - sigma_min) * t


def velocity_to_x0(x_t: Latent, t: float, v: Latent, sigma_min: float) -> Latent:
    """The data that velocity v points at: x_0 = (1 − σ)·x_t − (σ + (1 − σ)·t)·v."""
    return (1 - sigma_min) * x_t - noise_scale(t, sigma_min) * v


def velocity_to_noise(x_t: Latent, t: float, v: Latent) -> Latent:
    """The noise that velocity v comes from: ε = (1 − t)·v + x_t."""
    return (1 - t) * v + x_t


def x0_to_velocity(x_t: Latent, t: float, x_0: Latent, sigma_min: float) -> Latent:
    """The inverse of `velocity_to_x0` in its last argument: v = ((1 − σ)·x_t − x_0) / (σ + (1 − σ)·t)."""
    return ((1 - sigma_min) * x_t - x_0) / noise_scale(t, sigma_min)


def euler_step(x_t: Latent, t: float, t_prev: float, v: Latent) -> Latent:
    """From time t to t_prev < t along v: x − (t − t_prev)·v."""
    return x_t - (t - t_prev) * v


def strength_at(t: float, strength: float, interval: Interval) -> float:
    """The guidance strength at (rescaled) time t: `strength` inside the closed interval, 1 (none) outside."""
    return strength if interval[0] <= t <= interval[1] else 1.0


def guide(v_cond: Latent, v_neg: Latent, strength: float) -> Latent:
    """Classifier-free guidance, s·v_cond + (1 − s)·v_neg: strength 1 is the plain conditional velocity."""
    return strength * v_cond + (1 - strength) * v_neg


def std_per_sample(x: Latent) -> torch.Tensor:
    """Standard deviation of each sample over everything else, shaped to broadcast against x.

    Dense: unbiased, `[B, 1, 1, 1, 1]`. Sparse: population, over the sample's voxels and channels, `[B, 1]`.
    """
    if isinstance(x, torch.Tensor):
        return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
    return x.std(dim=[1], keepdim=True)


def rescale_guided(
    x_t: Latent, t: float, v_cond: Latent, v_guided: Latent, rescale: float, sigma_min: float
) -> Latent:
    """Pull the guided data estimate back to the spread of the conditional one, by the share `rescale`.

    Strong guidance inflates the estimate's standard deviation; x_0 = r·x_0,guided·std_cond/std_guided + (1 −
    r)·x_0,guided.
    """
    x0_cond = velocity_to_x0(x_t, t, v_cond, sigma_min)
    x0_guided = velocity_to_x0(x_t, t, v_guided, sigma_min)
    x0_matched = x0_guided * (std_per_sample(x0_cond) / std_per_sample(x0_guided))
    return x0_to_velocity(x_t, t, rescale * x0_matched + (1 - rescale) * x0_guided, sigma_min)


@torch.no_grad()
def denoise(
    velocity: Velocity,
    noise: Latent,
    times: list[float],
    monitor: Monitor | None = None,
    stage: str = "sampling",
    observe: Callable[[Latent, float, Latent, Latent], None] | None = None,
) -> Latent:
    """Walk from noise to data over `times`, reporting each step. Raises `Cancelled`.

    `observe(x_t, t, v, x_next)` is called after each step. Nobody waits for the device here: whether the
    result is finite is for `require_finite` to see.
    """
    monitor = monitor or Monitor()
    steps = len(times) - 1
    monitor.report(stage, 0, steps)
    x = noise
    for done, (t, t_next) in enumerate(pairwise(times), start=1):
        v = velocity(x, t)
        x_next = euler_step(x, t, t_next, v)
        if observe is not None:
            observe(x, t, v, x_next)
        x = x_next
        monitor.report(stage, done, steps)
    return x


def require_finite(x: Latent, what: str) -> None:
    """Raise `NumericalError` when the state holds NaN or infinity (one check, hence one device wait)."""
    values = x if isinstance(x, torch.Tensor) else x.feats
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise NumericalError(
            f"{what}: {bad} of {values.numel()} values are NaN or infinite; "
            "check the weights and the image, or lower guidance_strength"
        )
