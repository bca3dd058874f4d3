"""The pool of contexts, and calls that are not recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.trellis2.models.test_cuda import FLOW, network
from tests.trellis2.sparse.voxels import random_voxels
from trellis2.models import RecordedFlow
from trellis2.models.recorded_flow import MAX_CONTEXTS, ContextPool, RecordedContext
from trellis2.nn import cuda_graphs
from trellis2.nn.cuda_graphs import Recordings, SegmentedCall
from trellis2.nn.tokens import PixelTokens


@pytest.fixture
def contexts() -> list[RecordedContext]:
    """Of pictures with 9 tokens each."""
    model = network("SparseStructureFlowModel", **FLOW)
    with torch.no_grad():
        return [RecordedContext(model.prepare_cond(torch.randn(1, 9, 20))) for _ in range(6)]


def test_a_later_run_gets_the_same_memory_with_its_own_numbers(contexts: list[RecordedContext]) -> None:
    pool = ContextPool()
    first = pool.borrow(contexts[0])
    places, recordings = [x.data_ptr() for x in first.cache.tensors()], first.recordings
    del first
    second = pool.borrow(contexts[1])
    assert [x.data_ptr() for x in second.cache.tensors()] == places
    assert second.recordings is recordings
    pairs = zip(second.cache.tensors(), contexts[1].cache.tensors(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_somebody_holds_is_left_alone(contexts: list[RecordedContext]) -> None:
    pool = ContextPool()
    held = [pool.borrow(context) for context in contexts[: MAX_CONTEXTS + 1]]
    for mine, given in zip(held, contexts, strict=False):
        assert all(map(torch.equal, mine.cache.tensors(), given.cache.tensors()))
    assert len(pool) == MAX_CONTEXTS
    assert held[-1] is contexts[MAX_CONTEXTS]


def test_other_lengths_and_dtypes_take_an_idle_place(contexts: list[RecordedContext]) -> None:
    pool = ContextPool()
    for context in contexts[:MAX_CONTEXTS]:
        pool.borrow(context)
    model = network("SparseStructureFlowModel", torch.bfloat16, **FLOW)
    other = pool.borrow(RecordedContext(model.prepare_cond(torch.randn(1, 5, 20))))
    assert other.cache.blocks[0].k.dtype == torch.bfloat16
    assert len(pool) == MAX_CONTEXTS


def test_after_a_recording_that_failed_a_run_starts_afresh(contexts: list[RecordedContext]) -> None:
    pool = ContextPool()
    pool.borrow(contexts[0]).recordings.failed = True
    assert not pool.borrow(contexts[1]).recordings.failed


@torch.no_grad()
def test_pooled_features_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "RecordedCall", Replayed)
    monkeypatch.setattr(Recordings, "serve", lambda self, tokens: True)
    flow = network("SparseStructureFlowModel", **FLOW, image_attn_mode="proj", proj_in_channels=6)
    pool, given, places = ContextPool(), [], []
    x, t = torch.randn(1, 2, 4, 4, 4), torch.tensor([500.0])
    recorded = RecordedFlow(flow)
    for _ in range(3):
        rows = torch.randn(64, 6)
        given.append((rows, rows.clone()))
        cond = PixelTokens(torch.randn(1, 5, 20), rows)
        context = pool.borrow(RecordedContext(flow.prepare_cond(cond)))
        places.append([tensor.data_ptr() for tensor in context.cache.tensors()])
        assert torch.equal(recorded(x, t, context), flow(x, t, cond))
        del context
    assert places[0] == places[1] == places[2]
    assert all(torch.equal(rows, copy) for rows, copy in given)


def test_inference_tensors_are_not_pooled() -> None:
    model = network("SparseStructureFlowModel", **FLOW)
    with torch.inference_mode():
        fresh = RecordedContext(model.prepare_cond(torch.randn(1, 9, 20)))
    assert ContextPool().borrow(fresh) is fresh


@torch.no_grad()
def test_a_call_that_is_not_recorded_is_the_flows_own() -> None:
    flow = network("SparseStructureFlowModel", **FLOW)
    recorded = RecordedFlow(flow)
    x, t, cond = torch.randn(1, 2, 4, 4, 4), torch.tensor([500.0]), torch.randn(1, 9, 20)
    expected = flow(x, t, cond)
    for context in (cond, flow.prepare_cond(cond), recorded.prepare_cond(cond)):
        assert torch.equal(recorded(x, t, context), expected)
    assert (recorded.resolution, recorded.in_channels) == (flow.resolution, flow.in_channels)


class Replayed:
    """Stands for a recorded graph: every replay computes anew from the inputs that were there."""

    def __init__(self, call: SegmentedCall, inputs: Sequence[torch.Tensor | None], keep: Any) -> None:
        self.call, self.output = call, call(*inputs)

    def result(self) -> torch.Tensor:
        return self.output

    def __call__(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        return self.call(*inputs)


@torch.no_grad()
def test_recorded_calls_are_the_flows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "RecordedCall", Replayed)
    monkeypatch.setattr(Recordings, "serve", lambda self, tokens: True)
    flow = network("SLatFlowModel", **FLOW)
    recorded = RecordedFlow(flow)
    context = recorded.prepare_cond(torch.randn(2, 9, 20))
    for counts in ([30, 20], [30, 20], [25, 25]):
        x, t = random_voxels(counts, 4), torch.tensor([500.0, 20.0])
        concat = x.replace(torch.randn_like(x.feats))
        expected = flow(x, t, context.cache, concat)
        assert torch.equal(recorded(x, t, context, concat).feats, expected.feats)
    assert len(context.recordings) == 2
