"""Space-filling curve codes: published vectors, inverses, the wide extension, refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError
from o_voxel.serialize import MODES, decode_seq, encode_seq

VECTORS = [
    ((0, 0, 0), 0, 0),
    ((1, 0, 0), 4, 7),
    ((0, 1, 0), 2, 3),
    ((0, 0, 1), 1, 1),
    ((1, 2, 3), 29, 36),
    ((512, 0, 511), 556044873, 1001839469),
    ((1023, 0, 0), 613566756, 1073741823),
    ((1023, 1023, 1023), 1073741823, 766958445),
]


@pytest.mark.parametrize(("coord", "z_order", "hilbert"), VECTORS)
def test_vectors(coord: tuple[int, int, int], z_order: int, hilbert: int) -> None:
    coords = torch.tensor([coord], dtype=torch.int32)
    assert encode_seq(coords, mode="z_order").tolist() == [z_order]
    assert encode_seq(coords, mode="hilbert").tolist() == [hilbert]
    assert encode_seq(coords).dtype == torch.int32


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, (1 << 19) - 1)] * 3), min_size=1, max_size=20),
    st.permutations([0, 1, 2]),
    st.sampled_from(MODES),
    st.integers(1, 19),
)
def test_decoding_undoes_encoding(
    coords: list[tuple[int, int, int]], permute: list[int], mode: str, bits: int
) -> None:
    tensor = torch.tensor(coords) % (1 << bits)
    codes = encode_seq(tensor, permute, mode, bits)
    assert decode_seq(codes, permute, mode, bits).tolist() == tensor.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_wide_codes_keep_the_standard_values(mode: str) -> None:
    coords = torch.randint(0, 1024, (500, 3), generator=torch.Generator().manual_seed(0))
    standard = encode_seq(coords, mode=mode)
    for bits in (11, 13, 14, 19):
        wide = encode_seq(coords, mode=mode, bits=bits)
        assert wide.dtype == torch.int64
        assert wide.tolist() == standard.tolist()


def test_hilbert_neighbours_touch() -> None:
    side = 8
    coords = torch.tensor(list(itertools.product(range(side), repeat=3)))
    order = encode_seq(coords, mode="hilbert").argsort()
    steps = coords[order].diff(dim=0).abs().sum(dim=1)
    assert steps.tolist() == [1] * (side**3 - 1)


def test_out_of_range_is_refused() -> None:
    with pytest.raises(ArgumentError, match="1024"):
        encode_seq(torch.tensor([[1024, 0, 0]]))
    with pytest.raises(ArgumentError):
        encode_seq(torch.tensor([[-1, 0, 0]]), bits=19)
    with pytest.raises(ArgumentError):
        decode_seq(torch.tensor([1 << 30]))
    with pytest.raises(ArgumentError):
        decode_seq(torch.tensor([-1]))


@pytest.mark.parametrize("bad", [{"mode": "peano"}, {"permute": (0, 1, 1)}, {"bits": 20}, {"bits": 0}])
def test_bad_arguments(bad: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        encode_seq(torch.zeros((1, 3), dtype=torch.int32), **bad)  # type: ignore[arg-type]


def test_floats_are_refused() -> None:
    with pytest.raises(ArgumentError):
        encode_seq(torch.zeros((1, 3)))
    with pytest.raises(ArgumentError):
        decode_seq(torch.zeros(1))


def test_empty() -> None:
    assert encode_seq(torch.zeros((0, 3), dtype=torch.int32)).shape == (0,)
    assert decode_seq(torch.zeros(0, dtype=torch.int32), mode="hilbert").shape == (0, 3)
