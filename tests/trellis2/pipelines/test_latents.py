"""The pure functions between the stages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis2.errors import CheckpointError, EmptyStructureError, InvalidArgumentError
from trellis2.pipelines.conditioner import Condition, ImageConditioner
from trellis2.pipelines.latents import (
    Normalization,
    cascade_coords,
    occupied_coords,
    unique_coords,
)
from trellis2.sparse import SparseTensor


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_unique_coords_are_torch_unique(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(0, 5, (rows, 4), generator=generator, dtype=torch.int32)
    assert torch.equal(unique_coords(coords), torch.unique(coords, dim=0))


def test_occupied_coords_pool_and_order() -> None:
    logits = torch.full((2, 1, 8, 8, 8), -1.0)
    logits[0, 0, 7, 0, 3] = logits[0, 0, 6, 1, 2] = logits[1, 0, 0, 0, 0] = 0.5
    logits[0, 0, 0, 5, 5] = 0.0  # zero is empty
    assert occupied_coords(logits, 8).tolist() == [[0, 6, 1, 2], [0, 7, 0, 3], [1, 0, 0, 0]]
    assert occupied_coords(logits, 4).tolist() == [[0, 3, 0, 1], [1, 0, 0, 0]]
    with pytest.raises(EmptyStructureError, match="1 of 2"):
        occupied_coords(logits.index_fill(0, torch.tensor([1]), -1.0), 8)
    with pytest.raises(InvalidArgumentError, match="divide"):
        occupied_coords(logits, 3)


def test_cascade_stops_at_the_limit_or_the_floor() -> None:
    coords = torch.cat(
        [torch.zeros(4096, 1), torch.cartesian_prod(*[torch.arange(0, 512, 32.0)] * 3)], 1
    ).int()
    assert cascade_coords(coords, 512, 1536, 10**6)[1] == 1536
    assert cascade_coords(coords, 512, 1024, 1)[1] == 1024
    tokens, resolution = cascade_coords(coords, 512, 1536, 10)
    assert resolution == 1024
    assert tokens[:, 1:].max() == (480 + 0.5) // 8
    with pytest.raises(EmptyStructureError):
        cascade_coords(coords[:0], 512, 1024, 10)


def test_normalization_round_trip_and_width() -> None:
    slat = SparseTensor(feats=torch.randn(3, 2), coords=torch.zeros(3, 4, dtype=torch.int32))
    norm = Normalization({"mean": [1.0, -2.0], "std": [2.0, 0.5]})
    torch.testing.assert_close(norm.undo(norm.apply(slat)).feats, slat.feats)
    with pytest.raises(InvalidArgumentError, match="3 channels"):
        norm.apply(slat.replace(torch.randn(3, 3)))
    with pytest.raises(CheckpointError, match="2 and 1"):
        Normalization({"mean": [0.0, 0.0], "std": [1.0]})


def test_conditions_repeat_once() -> None:
    def batch(items: int) -> torch.Tensor:
        return Condition(torch.zeros(items, 4, 2), torch.zeros(items, 4, 2)).repeated(3).cond

    assert batch(1).shape == batch(3).shape == (3, 4, 2)
    with pytest.raises(InvalidArgumentError, match="2 items for 3"):
        batch(2)


def test_each_stage_sees_the_picture_at_its_size() -> None:
    low, high = (Condition(torch.zeros(1, n, 2), torch.zeros(1, n, 2)) for n in (5, 17))
    conditioner = ImageConditioner({512: low, 1024: high})
    assert conditioner.condition("shape", torch.zeros(3, 4), 512) is low
    assert conditioner.condition("shape_fine", torch.zeros(3, 4), 1408) is high
    with pytest.raises(InvalidArgumentError, match="texture at 1024 needs image tokens at 1024"):
        ImageConditioner({512: low}).condition("texture", None, 1024)
