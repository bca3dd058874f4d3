"""The flow's formulas against each other and against hand-made values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis2.errors import InvalidArgumentError, NumericalError
from trellis2.samplers import flow

SIGMA = 1e-5
times = st.floats(0.01, 1.0)


def test_time_grid_hits_the_guidance_bounds_exactly() -> None:
    shape_grid = flow.time_grid(12, 3.0)
    assert shape_grid[3] == 0.9
    assert shape_grid[8] == 0.6
    assert shape_grid[0] == 1.0
    assert shape_grid[-1] == 0.0
    guided = [flow.strength_at(t, 7.5, (0.6, 1.0)) == 7.5 for t in shape_grid[:-1]]
    assert sum(guided) == 9
    structure_grid = flow.time_grid(12, 5.0)
    assert sum(flow.strength_at(t, 7.5, (0.6, 1.0)) == 7.5 for t in structure_grid[:-1]) == 10


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 60), rescale_t=st.floats(0.1, 20))
def test_time_grid_falls_from_one_to_zero(steps: int, rescale_t: float) -> None:
    grid = flow.time_grid(steps, rescale_t)
    assert len(grid) == steps + 1
    assert grid[0] == pytest.approx(1.0, rel=1e-14)
    assert grid[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize("steps", [0, -3, 2.5, True])
def test_time_grid_refuses_steps(steps: float) -> None:
    with pytest.raises(InvalidArgumentError, match="steps"):
        flow.time_grid(steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("rescale_t", [0.0, -1.0, math.nan, math.inf])
def test_time_grid_refuses_warps(rescale_t: float) -> None:
    with pytest.raises(InvalidArgumentError, match="rescale_t"):
        flow.time_grid(4, rescale_t)


@settings(max_examples=20, deadline=None)
@given(t=times, seed=st.integers(0, 99))
def test_velocity_data_and_noise_agree(t: float, seed: int) -> None:
    torch.manual_seed(seed)
    x_0, noise = torch.randn(2, 1, 2, 3, 3, 3, dtype=torch.float64)
    x_t = (1 - t) * x_0 + flow.noise_scale(t, SIGMA) * noise
    v = (1 - SIGMA) * noise - x_0
    torch.testing.assert_close(flow.velocity_to_x0(x_t, t, v, SIGMA), x_0, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.velocity_to_noise(x_t, t, v), noise, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.x0_to_velocity(x_t, t, x_0, SIGMA), v, rtol=0, atol=1e-6)


def test_guidance_of_strength_one_is_conditional() -> None:
    a, b = torch.randn(2, 5)
    torch.testing.assert_close(flow.guide(a, b, 1.0), a)
    torch.testing.assert_close(flow.guide(a, b, 0.0), b)
    torch.testing.assert_close(flow.guide(a, b, 3.0), b + 3 * (a - b))


def test_full_rescale_restores_the_conditional_spread() -> None:
    torch.manual_seed(0)
    x_t, v_cond, v_guided = torch.randn(3, 2, 4, 3, 3, 3)
    v = flow.rescale_guided(x_t, 0.7, v_cond, 4 * v_guided, 1.0, SIGMA)
    spread = flow.std_per_sample(flow.velocity_to_x0(x_t, 0.7, v, SIGMA))
    wanted = flow.std_per_sample(flow.velocity_to_x0(x_t, 0.7, v_cond, SIGMA))
    torch.testing.assert_close(spread, wanted)


def test_require_finite_counts() -> None:
    flow.require_finite(torch.zeros(3), "x")
    with pytest.raises(NumericalError, match="2 of 3"):
        flow.require_finite(torch.tensor([math.nan, 1.0, math.inf]), "x")
