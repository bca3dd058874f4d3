from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trellis2.interpreter import interpret_triton
from trellis2.errors import InvalidArgumentError
from trellis2.sparse import neighbor_table, neighbor_table_of, neighbors
from trellis2.sparse.resample import Expansion, SparseChannel2Spatial, SparseSpatial2Channel

from .voxels import random_coords, random_voxels


def by_dictionary(coords: torch.Tensor) -> torch.Tensor:
    rows = {tuple(c): i for i, c in enumerate(coords.tolist())}
    offsets = [(i - 1, j - 1, k - 1) for i in range(3) for j in range(3) for k in range(3)]
    return torch.tensor(
        [
            [rows.get((b, x + i, y + j, z + k), len(coords)) for i, j, k in offsets]
            for b, x, y, z in coords.tolist()
        ],
        dtype=torch.int32,
    ).reshape(-1, 27)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    size=st.integers(4, 9),
    seed=st.integers(0, 1000),
    shift=st.tuples(*[st.integers(-3, 500)] * 3),
)
def test_table_equals_a_dictionary_lookup(
    counts: list[int], size: int, seed: int, shift: tuple[int, int, int]
) -> None:
    coords = random_coords(counts, size, seed) + torch.tensor([0, *shift], dtype=torch.int32)
    assert torch.equal(neighbor_table(coords), by_dictionary(coords))


def test_rows_do_not_wrap_around_the_grid() -> None:
    # The last cell of one line and the first of the next are adjacent as keys, not in space.
    coords = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.int32)
    assert torch.equal(neighbor_table(coords), by_dictionary(coords))


def test_duplicates_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="more than once"):
        neighbor_table(torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1]], dtype=torch.int32))


def test_astronomic_coordinates_are_refused() -> None:
    far = torch.tensor([[0, 0, 0, 0], [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]], dtype=torch.int32)
    with pytest.raises(InvalidArgumentError, match="2\\^62"):
        neighbor_table(far)


def test_the_table_is_built_once_and_shared() -> None:
    x = random_voxels([20], 4)
    assert neighbor_table_of(x) is neighbor_table_of(x.replace(torch.zeros(20, 1)))


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    chance=st.floats(0, 1),
    seed=st.integers(0, 1000),
    rows=st.sampled_from([7, 1 << 18]),
)
def test_the_table_of_children_equals_a_search(
    counts: list[int], chance: float, seed: int, rows: int
) -> None:
    """Two levels of it, their rows in the order of the parents'."""
    x = random_voxels(counts, 4, size=5)
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "TABLE_ROWS", rows)
        for _ in range(2):
            neighbor_table_of(x)
            x = Expansion.of(x, torch.rand(len(x.coords), 8) < chance).template
        assert torch.equal(neighbor_table_of(x), neighbor_table(x.coords))


def test_restored_voxels_take_their_parents_table_in_their_own_order() -> None:
    x = random_voxels([60, 40], 4, size=9)
    coarse = SparseSpatial2Channel()(x)
    neighbor_table_of(coarse)
    fine = SparseChannel2Spatial()(coarse.replace(coarse.feats))
    assert ("origin", fine.device) in fine.scale_cache.memo
    assert torch.equal(neighbor_table_of(fine), neighbor_table(x.coords))
    assert ("origin", fine.device) not in fine.scale_cache.memo, "the parents' tables can be freed"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_kernel_finds_the_same(device: str) -> None:
    module: Any = interpret_triton("trellis2.sparse.neighbors_triton", device)
    x = random_voxels([30, 20], 4, size=5)
    table, slots = neighbor_table(x.coords), (torch.rand(50 * 8) < 0.5).nonzero().squeeze(1)
    rows = table.new_full((8 * 51,), len(slots))
    rows[slots] = torch.arange(len(slots), dtype=torch.int32)
    out = module.children_table(*(a.to(device) for a in (table, slots, rows)))
    assert torch.equal(out.cpu(), neighbors.children_table(table, slots))
