from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from trellis2.errors import InvalidArgumentError
from trellis2.sparse import SparseSpatial2Channel, SparseTensor, sparse_cat

from .voxels import random_coords, random_voxels


def test_shape_layout_and_spatial_shape_follow_the_coordinates() -> None:
    coords = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [1, 4, 0, 1]], dtype=torch.int32)
    x = SparseTensor(torch.zeros(3, 5), coords)
    assert x.shape == (2, 5)
    assert len(x) == 2
    assert x.layout == [slice(0, 2), slice(2, 3)]
    assert x.spatial_shape == (5, 3, 4)
    assert SparseSpatial2Channel()(x).spatial_shape == (3, 2, 2)


def test_a_known_batch_size_keeps_empty_items() -> None:
    x = SparseTensor(torch.zeros(2, 1), torch.tensor([[1, 0, 0, 0], [1, 0, 0, 1]]), batch_size=3)
    assert x.lengths == [0, 2, 0]
    assert SparseTensor(torch.zeros(0, 4), torch.zeros(0, 4)[:0].int()).shape == (0, 4)


@pytest.mark.parametrize(
    ("feats", "coords"),
    [
        (torch.zeros(3, 1), torch.zeros(3, 3, dtype=torch.int32)),
        (torch.zeros(2, 1), torch.zeros(3, 4, dtype=torch.int32)),
        (torch.zeros(3, 1), torch.zeros(3, 4)),
    ],
)
def test_feats_and_coords_that_disagree_are_refused(feats: torch.Tensor, coords: torch.Tensor) -> None:
    with pytest.raises(InvalidArgumentError):
        SparseTensor(feats, coords)


def test_scattered_batch_items_are_refused() -> None:
    x = SparseTensor(torch.zeros(3, 1), torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]))
    with pytest.raises(InvalidArgumentError, match="contiguous"):
        _ = x.layout


def test_arithmetic_row_by_row_with_scalars_and_per_item_vectors() -> None:
    x = random_voxels([4, 3], 5)
    y = x.replace(torch.randn(7, 5))
    item = x.coords[:, 0].long()
    per_item = torch.randn(2, 5)
    torch.testing.assert_close((x + y).feats, x.feats + y.feats)
    torch.testing.assert_close((1 - x).feats, 1 - x.feats)
    torch.testing.assert_close((2.0 * x / 4 - 1).feats, 2 * x.feats / 4 - 1)
    torch.testing.assert_close((1 / x).feats, 1 / x.feats)
    torch.testing.assert_close((-x).feats, -x.feats)
    torch.testing.assert_close((x * per_item).feats, x.feats * per_item[item])
    torch.testing.assert_close((per_item - x).feats, per_item[item] - x.feats)
    torch.testing.assert_close((x / per_item[:, :1]).feats, x.feats / per_item[item, :1])
    torch.testing.assert_close((x + per_item[:1]).feats, x.feats + per_item[:1])
    torch.testing.assert_close((x + torch.tensor(3.0)).feats, x.feats + 3)


def test_arithmetic_that_does_not_fit_is_refused() -> None:
    x = random_voxels([4, 3], 5)
    with pytest.raises(InvalidArgumentError, match="broadcast"):
        x + torch.zeros(7, 5)
    with pytest.raises(InvalidArgumentError, match="7 and 4"):
        x + x[0]


def test_reductions_give_one_value_an_item() -> None:
    x = random_voxels([9, 4], 3)
    rows = [x.feats[:9], x.feats[9:]]
    torch.testing.assert_close(x.mean(), torch.stack([r.mean() for r in rows]))
    torch.testing.assert_close(x.sum(1, keepdim=True), torch.stack([r.sum()[None] for r in rows]))
    torch.testing.assert_close(x.prod([1]), torch.stack([r.prod() for r in rows]))
    torch.testing.assert_close(x.std([1]), torch.stack([r.std(correction=0) for r in rows]))
    with pytest.raises(InvalidArgumentError):
        x.mean(0)


def test_indexing_renumbers_the_batch_and_starts_a_new_cache() -> None:
    x = random_voxels([4, 3, 5], 2)
    picked = x[[2, 0]]
    torch.testing.assert_close(picked.feats, torch.cat([x.feats[7:], x.feats[:4]]))
    assert picked.coords[:, 0].tolist() == [0] * 5 + [1] * 4
    assert torch.equal(x[torch.tensor([False, True, False])].coords, x[1].coords)
    assert x[-1].lengths == x[1:][1].lengths == [5]
    assert [len(item.feats) for item in x] == [4, 3, 5]
    with pytest.raises(IndexError):
        _ = x[3]


def test_cat_stacks_batches_or_channels() -> None:
    x, y = random_voxels([4, 3], 2), random_voxels([2], 2, seed=5)
    both = sparse_cat([x, y])
    assert both.lengths == [4, 3, 2]
    assert both.coords[-1, 0] == 2
    wide = sparse_cat([x, x * 2], dim=-1)
    assert wide.shape == (2, 4)
    assert wide.coords is x.coords
    with pytest.raises(InvalidArgumentError):
        sparse_cat([x, y], dim=1)


def test_dense_scatters_features() -> None:
    x = random_voxels([5, 6], 3)
    volume = x.dense([6, 6, 6])
    assert volume.shape == (2, 3, 6, 6, 6)
    b, i, j, k = x.coords[4].tolist()
    torch.testing.assert_close(volume[b, :, i, j, k], x.feats[4])
    torch.testing.assert_close(volume.sum(), x.feats.sum())


def test_the_cache_travels_with_the_voxels_and_can_be_cleared() -> None:
    x = random_voxels([8], 8)
    x.cached("answer", lambda: 42)
    derived = (x.half() * 2).replace(torch.zeros(8, 1))
    assert derived.cached("answer", lambda: 0) == 42
    assert derived.scale == Fraction(1)
    derived.clear_spatial_cache()
    assert derived.cached("answer", lambda: 0) == 0
    assert x.cached("answer", lambda: 0) == 42


def test_wide_integer_coordinates_become_int32() -> None:
    x = SparseTensor(torch.zeros(3, 1), random_coords([3]).long())
    assert x.coords.dtype == torch.int32
