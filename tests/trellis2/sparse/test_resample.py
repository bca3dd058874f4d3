from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis2.errors import InvalidArgumentError
from trellis2.sparse import SparseChannel2Spatial, SparseSpatial2Channel, SparseTensor
from trellis2.sparse.resample import child_index, true_subdivision

from .voxels import random_voxels


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=3), seed=st.integers(0, 100))
def test_down_then_up_restores_voxels_in_their_own_order(counts: list[int], seed: int) -> None:
    x = random_voxels(counts, 3, size=7, seed=seed)
    down = SparseSpatial2Channel()(x)
    up = SparseChannel2Spatial()(down.replace(down.feats.clone()), None)
    assert torch.equal(up.coords, x.coords)
    assert torch.equal(up.feats, x.feats)
    assert up.scale == x.scale


def test_parents_are_sorted_and_children_fill_their_channels() -> None:
    x = random_voxels([30, 20], 2)
    down = SparseSpatial2Channel()(x)
    keys = [tuple(c) for c in down.coords.tolist()]
    assert keys == sorted({(b, i // 2, j // 2, k // 2) for b, i, j, k in x.coords.tolist()})
    assert down.coords.dtype == torch.int32
    for row, (b, i, j, k) in enumerate(x.coords.tolist()):
        child = i % 2 + 2 * (j % 2) + 4 * (k % 2)
        parent = keys.index((b, i // 2, j // 2, k // 2))
        assert torch.equal(down.feats[parent, 2 * child : 2 * child + 2], x.feats[row])
        assert child_index(x.coords)[row] == child
    mask = true_subdivision(down)
    assert mask is not None
    assert mask.sum() == 50
    assert torch.equal(down.feats.view(-1, 8, 2)[~mask], torch.zeros(len(keys) * 8 - 50, 2))


def test_down_twice_and_up_twice() -> None:
    x = random_voxels([40], 1, size=8)
    down = SparseSpatial2Channel()(SparseSpatial2Channel()(x))
    assert down.scale == 4
    up = SparseChannel2Spatial()(SparseChannel2Spatial()(down))
    assert torch.equal(up.feats, x.feats)


def test_a_mask_decides_where_nothing_is_remembered() -> None:
    coords = torch.tensor([[0, 3, 1, 2], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32)
    x = SparseTensor(torch.arange(48.0).view(3, 16), coords)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    mask[0, [1, 6]] = True
    mask[2, 0] = True  # the second parent vanishes
    up = SparseChannel2Spatial()(x, mask)
    assert up.coords.tolist() == [[0, 7, 2, 4], [0, 6, 3, 5], [0, 2, 0, 0]]
    assert up.feats.tolist() == [[2, 3], [12, 13], [32, 33]]


def test_memory_wins_over_a_mask_and_forgetting_brings_the_mask_back() -> None:
    x = random_voxels([20], 1)
    down = SparseSpatial2Channel()(x)
    everything = torch.ones(len(down.coords), 8, dtype=torch.bool)
    assert len(SparseChannel2Spatial()(down, everything).coords) == 20
    down.clear_spatial_cache()
    assert len(SparseChannel2Spatial()(down, everything).coords) == 8 * len(down.coords)
    with pytest.raises(InvalidArgumentError, match="subdivision mask"):
        SparseChannel2Spatial()(down)
    with pytest.raises(InvalidArgumentError, match="same order"):
        SparseChannel2Spatial()(down, everything[:-1])


def test_gradients_flow_through_both() -> None:
    x = random_voxels([20], 2)
    x.feats.requires_grad_()
    (SparseChannel2Spatial()(SparseSpatial2Channel()(x)) * 3).feats.sum().backward()
    assert x.feats.grad is not None
    assert torch.equal(x.feats.grad, torch.full_like(x.feats, 3))
