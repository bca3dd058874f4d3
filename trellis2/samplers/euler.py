"""The three samplers that pipeline configs name, and the lookup by that name.

All are built with `sigma_min` alone and return a `SamplingResult`. `monitor` reports each step under the
stage name `tqdm_desc` and is asked for cancellation between steps; `verbose` is accepted for callers of the
published interface and draws nothing (bars belong to the caller).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointError, InvalidArgumentError
from ..progress import Monitor
from .acceleration import Passes, forecast_steps
from .flow import (
    Latent,
    SamplingResult,
    denoise,
    euler_step,
    require_finite,
    time_grid,
    velocity_to_x0,
)
from .guidance import Guidance, GuidedModel


@dataclass(frozen=True)
class Step:
    """The result of one step: the state after it and the data estimate it came from."""

    pred_x_prev: Any
    pred_x_0: Any


class FlowEulerSampler:
    """Plain conditional sampling."""

    parameters: frozenset[str] = frozenset({"steps", "rescale_t"})

    def __init__(self, sigma_min: float, *, batched_guidance: bool | None = None) -> None:
        if not 0.0 <= sigma_min < 1.0:
            raise InvalidArgumentError(f"sigma_min must lie in 0..1, got {sigma_min!r}")
        self.sigma_min = sigma_min
        self.batched_guidance = batched_guidance

    def sample(
        self,
        model: Any,
        noise: Latent,
        cond: Any = None,
        steps: int = 50,
        rescale_t: float = 1.0,
        verbose: bool = True,
        tqdm_desc: str = "Sampling",
        *,
        monitor: Monitor | None = None,
        **kwargs: Any,
    ) -> SamplingResult:
        """Denoise in `steps` Euler steps. Raises `InvalidArgumentError`, `NumericalError`, `Cancelled`."""
        result = SamplingResult(noise)

        def observe(x_t: Latent, t: float, v: Latent, x_next: Latent) -> None:
            result.pred_x_0.append(velocity_to_x0(x_t, t, v, self.sigma_min))
            result.pred_x_t.append(x_next)

        result.samples = self.denoise(
            model,
            noise,
            cond,
            steps=steps,
            rescale_t=rescale_t,
            monitor=monitor,
            stage=tqdm_desc,
            observe=observe,
            **kwargs,
        )
        require_finite(result.samples, tqdm_desc)
        return result

    def denoise(
        self,
        model: Any,
        noise: Latent,
        cond: Any = None,
        *,
        steps: int = 50,
        rescale_t: float = 1.0,
        monitor: Monitor | None = None,
        stage: str = "sampling",
        observe: Callable[[Latent, float, Latent, Latent], None] | None = None,
        quality: str = "exact",
        passes: Callable[[Passes], None] | None = None,
        **options: Any,
    ) -> Latent:
        """The final state alone, which nobody has looked at: the device may still be at work on it.

        `quality`: "exact", or "fast" with forecasts at some steps and, of networks that have such, the
        variant with 8-bit products; `passes` is told what was computed.
        """
        if quality == "fast" and hasattr(model, "fast"):
            model = model.fast()
        velocity, times = self._bind(model, cond, options), time_grid(steps, rescale_t)
        guidance = velocity.guidance
        velocity.forecast_at(forecast_steps(quality, times, guidance.strength, guidance.interval))
        latent = denoise(velocity, noise, times, monitor, stage, observe)
        if passes is not None:
            counted = velocity.passes
            counted.fp8 = counted.conditional + counted.null if getattr(model, "fp8", False) else 0
            passes(counted)
        return latent

    @torch.no_grad()
    def sample_once(
        self, model: Any, x_t: Latent, t: float, t_prev: float, cond: Any = None, **kwargs: Any
    ) -> Step:
        """One Euler step from t to t_prev, with the attributes `pred_x_prev` and `pred_x_0`."""
        v = self._bind(model, cond, kwargs)(x_t, t)
        return Step(euler_step(x_t, t, t_prev, v), velocity_to_x0(x_t, t, v, self.sigma_min))

    def _bind(self, model: Any, cond: Any, options: dict[str, Any]) -> GuidedModel:
        """The velocity function for these conditions; options are guidance settings and network arguments."""
        extra = {name: value for name, value in options.items() if name != "neg_cond"}
        return GuidedModel(model, cond, sigma_min=self.sigma_min, extra=extra)


class FlowEulerCfgSampler(FlowEulerSampler):
    """Classifier-free guidance at every step; takes `guidance_rescale` (0 to 1), too."""

    parameters = FlowEulerSampler.parameters | {"guidance_strength", "guidance_rescale"}

    def sample(  # type: ignore[override]  # the published signature puts neg_cond fourth
        self,
        model: Any,
        noise: Latent,
        cond: Any,
        neg_cond: Any,
        steps: int = 50,
        rescale_t: float = 1.0,
        guidance_strength: float = 3.0,
        verbose: bool = True,
        tqdm_desc: str = "Sampling",
        *,
        monitor: Monitor | None = None,
        **kwargs: Any,
    ) -> SamplingResult:
        """Denoise `noise` towards `cond` and away from `neg_cond`."""
        return super().sample(
            model,
            noise,
            cond,
            steps,
            rescale_t,
            verbose,
            tqdm_desc,
            monitor=monitor,
            neg_cond=neg_cond,
            guidance_strength=guidance_strength,
            **kwargs,
        )

    def _bind(self, model: Any, cond: Any, options: dict[str, Any]) -> GuidedModel:
        extra = dict(options)
        neg_cond = extra.pop("neg_cond", None)
        strength = float(extra.pop("guidance_strength", 3.0))
        rescale = float(extra.pop("guidance_rescale", 0.0))
        guidance = Guidance(strength, rescale, self._interval(extra))
        return GuidedModel(model, cond, neg_cond, guidance, self.sigma_min, extra, self.batched_guidance)

    def _interval(self, options: dict[str, Any]) -> tuple[float, float]:
        """The guided interval, taken out of the options; this sampler guides everywhere."""
        return 0.0, 1.0


class FlowEulerGuidanceIntervalSampler(FlowEulerCfgSampler):
    """Classifier-free guidance inside a closed interval of t only; plain conditional steps outside it."""

    parameters = FlowEulerCfgSampler.parameters | {"guidance_interval"}

    def sample(  # type: ignore[override]  # guidance_interval follows guidance_strength in the published signature
        self,
        model: Any,
        noise: Latent,
        cond: Any,
        neg_cond: Any,
        steps: int = 50,
        rescale_t: float = 1.0,
        guidance_strength: float = 3.0,
        guidance_interval: Sequence[float] = (0.0, 1.0),
        verbose: bool = True,
        tqdm_desc: str = "Sampling",
        *,
        monitor: Monitor | None = None,
        **kwargs: Any,
    ) -> SamplingResult:
        """As `FlowEulerCfgSampler.sample`, guided where guidance_interval[0] <= t <= guidance_interval[1]."""
        return super().sample(
            model,
            noise,
            cond,
            neg_cond,
            steps,
            rescale_t,
            guidance_strength,
            verbose,
            tqdm_desc,
            monitor=monitor,
            guidance_interval=guidance_interval,
            **kwargs,
        )

    def _interval(self, options: dict[str, Any]) -> tuple[float, float]:
        return pair_of_floats(options.pop("guidance_interval", (0.0, 1.0)))


SAMPLERS: Mapping[str, type[FlowEulerSampler]] = {
    cls.__name__: cls for cls in (FlowEulerSampler, FlowEulerCfgSampler, FlowEulerGuidanceIntervalSampler)
}


def build_sampler(name: str, args: Mapping[str, Any]) -> FlowEulerSampler:
    """The sampler that a config names. Raises `CheckpointError` for an unknown name."""
    if name not in SAMPLERS:
        raise CheckpointError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](**args)


def pair_of_floats(values: Sequence[float]) -> tuple[float, float]:
    """Two floats from a config's list. Raises `InvalidArgumentError` for any other shape or for NaN."""
    try:
        low, high = (float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"guidance_interval needs two numbers, got {values!r}") from error
    if math.isnan(low) or math.isnan(high):
        raise InvalidArgumentError(f"guidance_interval must not hold NaN, got {values!r}")
    return low, high
