"""Which steps do without the network, what they use instead, and that the rest is unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trellis2.errors import InvalidArgumentError
from trellis2.samplers import FlowEulerGuidanceIntervalSampler
from trellis2.samplers.acceleration import Passes, VelocityHistory, forecast_steps
from trellis2.samplers.flow import guide, strength_at, time_grid

PUBLISHED = {"steps": 12, "guidance_strength": 7.5, "guidance_rescale": 0.5, "guidance_interval": (0.6, 1.0)}


@pytest.mark.parametrize(
    ("rescale_t", "strength", "interval", "expected"),
    [
        (5.0, 7.5, (0.6, 1.0), {4, 6, 8, 10}),  # structure
        (3.0, 7.5, (0.6, 1.0), {3, 5, 7, 9}),  # shape
        (3.0, 1.0, (0.6, 0.9), {4, 6, 8, 10}),  # texture: never guided
        (3.0, 3.0, (0.6, 0.9), {5, 7, 9}),  # guided from step 3 on
    ],
)
def test_published_schedules(
    rescale_t: float, strength: float, interval: tuple[float, float], expected: set[int]
) -> None:
    times = time_grid(12, rescale_t)
    assert forecast_steps("fast", times, strength, interval) == expected
    assert forecast_steps("exact", times, strength, interval) == frozenset()


@pytest.mark.parametrize("steps", range(1, 60))
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.6, 1.0), (0.3, 0.9)])
def test_no_two_neighbours_and_no_boundary_is_forecast(steps: int, interval: tuple[float, float]) -> None:
    times = time_grid(steps, 3.0)
    chosen = forecast_steps("fast", times, 5.0, interval)
    guided = [i for i, t in enumerate(times[:-1]) if strength_at(t, 5.0, interval) != 1.0]
    assert chosen.isdisjoint({0, 1, 2, steps - 1, *guided[:1], *guided[-1:]})
    assert all(i + 1 not in chosen for i in chosen)
    assert bool(chosen) == (steps >= 8)


def test_unknown_quality_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="exact, fast"):
        forecast_steps("best", time_grid(12))


def test_a_linear_velocity_is_forecast_exactly() -> None:
    a, b, g = torch.randn(3, 5)
    history = VelocityHistory()
    for t in (0.9, 0.8, 0.65):
        history.add(t, a + t * b, a + t * b - g)
    v = history.conditional(0.5)
    torch.testing.assert_close(v, a + 0.5 * b)
    torch.testing.assert_close(history.guided(v, 4.0), guide(v, v - g, 4.0))
    assert torch.equal(history.guided(v, 1.0), v)


def velocity(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """Linear in state and time; the condition's part is constant, so guidance is too."""
    return 0.1 * x.mean() + cond.mean() + t.view(-1, 1, 1, 1, 1) / 1000 * torch.ones_like(x)


@pytest.mark.parametrize(("quality", "counted"), [("exact", Passes(12, 9, 0)), ("fast", Passes(8, 6, 4))])
def test_the_budget_is_counted_and_the_result_near(quality: str, counted: Passes) -> None:
    torch.manual_seed(0)
    noise, cond = torch.randn(1, 2, 3, 3, 3), torch.ones(1, 4, 5)
    calls: list[float] = []
    seen: list[Passes] = []

    def model(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return velocity(x, t, c)

    sampler = FlowEulerGuidanceIntervalSampler(1e-5)
    options: dict[str, Any] = {**PUBLISHED, "rescale_t": 3.0, "neg_cond": torch.zeros_like(cond)}
    exact = sampler.denoise(velocity, noise, cond, **options)
    result = sampler.denoise(model, noise, cond, **options, quality=quality, passes=seen.append)
    assert seen == [counted]
    assert len(calls) == counted.conditional + counted.null
    if quality == "exact":
        assert torch.equal(result, exact)
    assert (result - exact).norm() < 0.01 * exact.norm()
