from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tests.trellis2.models.test_cuda import FLOW, network
from trellis2.models.context import MOST_KEPT, ContextCache, KeptContexts


@pytest.fixture
def contexts() -> list[ContextCache]:
    """Of pictures with 9 tokens each."""
    model = network("SparseStructureFlowModel", **FLOW)
    with torch.no_grad():
        return [model.prepare_cond(torch.randn(1, 9, 20)) for _ in range(6)]


def test_a_later_run_gets_the_same_memory_with_its_own_numbers(contexts: list[ContextCache]) -> None:
    kept = KeptContexts()
    first = kept.lend(contexts[0])
    places, graphs = [x.data_ptr() for x in first.tensors()], first.graphs
    del first
    second = kept.lend(contexts[1])
    assert [x.data_ptr() for x in second.tensors()] == places
    assert second.graphs is graphs
    assert all(torch.equal(a, b) for a, b in zip(second.tensors(), contexts[1].tensors(), strict=True))


def test_what_somebody_holds_is_left_alone(contexts: list[ContextCache]) -> None:
    kept = KeptContexts()
    held = [kept.lend(c) for c in contexts]
    for mine, given in zip(held, contexts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.tensors(), given.tensors(), strict=True))
    assert len(kept._kept) == MOST_KEPT


@torch.no_grad()
def test_other_lengths_and_dtypes_take_an_idle_place(contexts: list[ContextCache]) -> None:
    kept = KeptContexts()
    held = kept.lend(contexts[0])
    kept.lend(contexts[1])
    model = network("SparseStructureFlowModel", torch.bfloat16, **FLOW)
    other = kept.lend(model.prepare_cond(torch.randn(1, 5, 20)))
    assert other.layout.lengths == (5,)
    assert {x.dtype for x in other.tensors()} == {torch.bfloat16}
    assert len(kept._kept) == MOST_KEPT
    assert torch.equal(held.tensors()[0], contexts[0].tensors()[0])


def test_after_a_recording_that_failed_a_run_starts_afresh(contexts: list[ContextCache]) -> None:
    kept = KeptContexts()
    kept.lend(contexts[0]).graphs.failed = True
    assert not kept.lend(contexts[1]).graphs.failed


@torch.inference_mode()
def test_inference_tensors_are_not_kept() -> None:
    model = network("SparseStructureFlowModel", **FLOW)
    fresh = model.prepare_cond(torch.randn(1, 9, 20))
    assert KeptContexts().lend(fresh) is fresh


def test_a_copied_or_stored_network_keeps_its_own(contexts: list[ContextCache]) -> None:
    kept = KeptContexts()
    kept.lend(contexts[0])
    assert copy.deepcopy(kept)._kept == pickle.loads(pickle.dumps(kept))._kept == []
