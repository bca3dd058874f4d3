"""The configured samplers: how often the network runs, in which form, and what callers can stop or break."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trellis2.errors import Cancelled, CheckpointError, InvalidArgumentError, NumericalError
from trellis2.models import SLatFlowModel, SparseStructureFlowModel
from trellis2.progress import Monitor, Progress
from trellis2.samplers import (
    SAMPLERS,
    FlowEulerCfgSampler,
    FlowEulerGuidanceIntervalSampler,
    FlowEulerSampler,
    build_sampler,
)
from trellis2.sparse import SparseTensor

ARGS: dict[str, Any] = {
    "model_channels": 24,
    "cond_channels": 10,
    "num_blocks": 2,
    "num_heads": 2,
    "pe_mode": "rope",
    "share_mod": True,
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
}
GUIDED = {"steps": 4, "rescale_t": 3.0, "guidance_strength": 4.0, "guidance_rescale": 0.6}


def randomized(model: torch.nn.Module) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * (0.3 if p.ndim == 1 else p[0].numel() ** -0.5))
    return model.eval()


@pytest.fixture(scope="module")
def dense_model() -> Any:
    return randomized(SparseStructureFlowModel(resolution=3, in_channels=4, out_channels=4, **ARGS))


@pytest.fixture(scope="module")
def sparse_model() -> Any:
    return randomized(SLatFlowModel(resolution=8, in_channels=8, out_channels=4, **ARGS))


def dense_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(2, 4, 3, 3, 3), torch.randn(2, 7, 10)


def sparse_inputs() -> tuple[SparseTensor, SparseTensor, torch.Tensor]:
    torch.manual_seed(3)
    coords = torch.cat([torch.randint(0, 8, (20, 3)).unique(dim=0)] * 2)
    batch = torch.arange(2).repeat_interleave(len(coords) // 2)[:, None]
    noise = SparseTensor(feats=torch.randn(len(coords), 4), coords=torch.cat([batch, coords], 1).int())
    return noise, noise.replace(torch.randn(len(coords), 4)), torch.randn(2, 7, 10)


class Counting:
    """Counts forward passes and what they are given."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.batches: list[int] = []
        self.prepared = 0

    def prepare_cond(self, cond: Any) -> Any:
        self.prepared += 1
        return self.model.prepare_cond(cond)

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self.batches.append(x.shape[0])
        return self.model(x, *args, **kwargs)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.6, 1.0)])
def test_batched_guidance_equals_two_passes_dense(dense_model: Any, interval: tuple[float, float]) -> None:
    noise, cond = dense_inputs()
    results = [
        FlowEulerGuidanceIntervalSampler(1e-5, batched_guidance=batched).sample(
            dense_model, noise, cond, torch.zeros_like(cond), guidance_interval=interval, **GUIDED
        )
        for batched in (True, False)
    ]
    torch.testing.assert_close(results[0].samples, results[1].samples, rtol=1e-4, atol=1e-5)


def test_batched_guidance_equals_two_passes_sparse(sparse_model: Any) -> None:
    noise, concat_cond, cond = sparse_inputs()
    results = [
        FlowEulerCfgSampler(1e-5, batched_guidance=batched).sample(
            sparse_model, noise, cond, torch.zeros_like(cond), concat_cond=concat_cond, **GUIDED
        )
        for batched in (True, False)
    ]
    torch.testing.assert_close(results[0].samples.feats, results[1].samples.feats, rtol=1e-4, atol=1e-5)
    assert torch.equal(results[0].samples.coords, noise.coords)


def test_prepared_contexts_change_no_number(dense_model: Any) -> None:
    noise, cond = dense_inputs()

    def plain(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = dense_model(x, t, c)
        return out

    sampler = FlowEulerCfgSampler(1e-5)
    prepared = sampler.sample(dense_model, noise, cond, torch.zeros_like(cond), **GUIDED)
    unprepared = sampler.sample(plain, noise, cond, torch.zeros_like(cond), **GUIDED)
    torch.testing.assert_close(prepared.samples, unprepared.samples, rtol=1e-4, atol=1e-5)


def test_network_runs_no_more_than_needed(dense_model: Any) -> None:
    noise, cond = dense_inputs()
    neg = torch.zeros_like(cond)
    options = {**GUIDED, "steps": 12, "guidance_interval": (0.6, 1.0)}

    joint = Counting(dense_model)
    FlowEulerGuidanceIntervalSampler(1e-5).sample(joint, noise, cond, neg, **options)
    assert joint.batches == [4] * 9 + [2] * 3
    assert joint.prepared == 2  # the pair, and the condition alone

    apart = Counting(dense_model)
    FlowEulerGuidanceIntervalSampler(1e-5, batched_guidance=False).sample(apart, noise, cond, neg, **options)
    assert apart.batches == [2] * (9 * 2 + 3)
    assert apart.prepared == 2

    plain = Counting(dense_model)
    FlowEulerCfgSampler(1e-5).sample(plain, noise, cond, neg, steps=3, guidance_strength=1.0)
    assert plain.batches == [2] * 3


def test_sample_once_is_one_step_of_sample(dense_model: Any) -> None:
    noise, cond = dense_inputs()
    sampler = FlowEulerCfgSampler(1e-5)
    neg = torch.zeros_like(cond)
    whole = sampler.sample(dense_model, noise, cond, neg, steps=1, guidance_strength=2.0)
    once = sampler.sample_once(dense_model, noise, 1.0, 0.0, cond, neg_cond=neg, guidance_strength=2.0)
    torch.testing.assert_close(once.pred_x_prev, whole.samples)
    torch.testing.assert_close(once.pred_x_0, whole.pred_x_0[0])


def test_progress_counts_every_step() -> None:
    seen: list[Progress] = []
    FlowEulerSampler(1e-5).sample(
        lambda x, t, cond: x,
        torch.zeros(1, 1, 2, 2, 2),
        steps=3,
        tqdm_desc="shape",
        monitor=Monitor(seen.append),
    )
    assert [(p.stage, p.step, p.steps) for p in seen] == [("shape", i, 3) for i in range(4)]


def test_cancel_stops_between_steps() -> None:
    calls: list[float] = []

    def model(x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        calls.append(float(t[0]))
        return x

    monitor = Monitor(cancel=lambda: len(calls) >= 2)
    with pytest.raises(Cancelled, match="step 2 of 9"):
        FlowEulerSampler(1e-5).sample(model, torch.zeros(1, 1, 2, 2, 2), steps=9, monitor=monitor)
    assert len(calls) == 2


def test_nan_velocity_is_an_error() -> None:
    with pytest.raises(NumericalError, match="8 of 8"):
        FlowEulerSampler(1e-5).sample(lambda x, t, c: x * math.nan, torch.ones(1, 1, 2, 2, 2), steps=2)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_caller_may_look_for_nan_itself(name: str) -> None:
    noise = torch.ones(1, 1, 2, 2, 2)
    both = {} if name == "FlowEulerSampler" else {"guidance_strength": 1.0}
    result = SAMPLERS[name](1e-5).denoise(
        lambda x, t, c: x * math.nan, noise, None, steps=2, neg_cond=None, **both
    )
    assert result.isnan().all()


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_interval": (0.9, 0.1)},
        {"guidance_interval": (0.5,)},
        {"guidance_interval": (math.nan, 1.0)},
        {"guidance_interval": "ab"},
        {"guidance_interval": (-0.1, 1.0)},
        {"guidance_strength": math.nan},
        {"guidance_rescale": 1.5},
        {"steps": 0},
        {"rescale_t": -2.0},
    ],
)
def test_bad_parameters_are_typed_errors(options: dict[str, Any]) -> None:
    noise, cond = dense_inputs()
    with pytest.raises(InvalidArgumentError):
        FlowEulerGuidanceIntervalSampler(1e-5).sample(
            lambda x, t, c: x, noise, cond, torch.zeros_like(cond), **options
        )


def test_guidance_without_a_null_condition_is_an_error() -> None:
    noise, cond = dense_inputs()
    with pytest.raises(InvalidArgumentError, match="neg_cond"):
        FlowEulerCfgSampler(1e-5).sample(lambda x, t, c: x, noise, cond, None, guidance_strength=2.0)


def test_samplers_are_built_by_name() -> None:
    sampler = build_sampler("FlowEulerGuidanceIntervalSampler", {"sigma_min": 1e-5})
    assert isinstance(sampler, FlowEulerGuidanceIntervalSampler)
    with pytest.raises(CheckpointError, match="DdimSampler"):
        build_sampler("DdimSampler", {})
    with pytest.raises(InvalidArgumentError, match="sigma_min"):
        FlowEulerSampler(-1.0)
