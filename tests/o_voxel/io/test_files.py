"""What holds for every format: round trips, suffixes, paths and file objects, damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel import io as voxel_io
from o_voxel.errors import ArgumentError, FormatError

from .voxels import blob, damaged_reads_end_well, rows

FORMATS = {
    "npz": (voxel_io.read_npz, voxel_io.write_npz),
    "ply": (voxel_io.read_ply, voxel_io.write_ply),
    "vxz": (voxel_io.read_vxz, voxel_io.write_vxz),
}


def packed(name: str, count: int = 60, **options: Any) -> bytes:
    handle = io.BytesIO()
    FORMATS[name][1](handle, *blob(count), **options)
    return handle.getvalue()


@pytest.mark.parametrize("suffix", ["npz", "ply", "vxz", "NPZ"])
def test_round_trip_by_suffix(tmp_path: Path, suffix: str) -> None:
    coords, attrs = blob()
    path = tmp_path / f"voxels.{suffix}"
    voxel_io.write(path, coords, attrs)
    back, back_attrs = voxel_io.read(str(path))
    assert back.dtype == torch.int32
    assert list(back_attrs) == list(attrs)
    assert rows(back, back_attrs) == rows(coords, attrs)
    if suffix != "vxz":  # the others keep the order
        assert torch.equal(back, coords)


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unsupported file type"):
        voxel_io.read(tmp_path / "voxels.obj")
    with pytest.raises(ArgumentError, match="Unsupported file type"):
        voxel_io.write(tmp_path / "voxels", *blob(4))


@pytest.mark.parametrize("name", list(FORMATS))
def test_nothing_at_all_is_a_file_too(name: str) -> None:
    read, write = FORMATS[name]
    handle = io.BytesIO()
    write(handle, torch.zeros((0, 3), dtype=torch.int32), {"a": torch.zeros((0, 2), dtype=torch.uint8)})
    handle.seek(0)
    coords, attrs = read(handle)
    assert coords.shape == (0, 3)
    assert attrs["a"].shape == (0, 2)


@pytest.mark.parametrize("name", list(FORMATS))
def test_arguments_that_disagree(name: str) -> None:
    write = FORMATS[name][1]
    coords, _ = blob(4)
    for bad_coords, bad_attrs in [
        (coords.float(), {}),
        (coords[:, :2], {}),
        (coords, {"a": torch.zeros((3, 1), dtype=torch.uint8)}),
        (coords, {"a": torch.zeros(4, dtype=torch.uint8)}),
    ]:
        with pytest.raises(ArgumentError):
            write(io.BytesIO(), bad_coords, bad_attrs)


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_ceiling_on_bytes(name: str) -> None:
    with pytest.raises(FormatError, match="max_bytes"):
        FORMATS[name][0](io.BytesIO(packed(name)), max_bytes=100)


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_truncation_is_refused(name: str) -> None:
    data = packed(name, count=12)
    for cut in range(0, len(data) - 1, max(1, len(data) // 97)):
        with pytest.raises(FormatError):
            FORMATS[name][0](io.BytesIO(data[:cut]))


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=60, deadline=None)
@given(
    cut=st.none() | st.integers(0, 1 << 20),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=4),
)
def test_flipped_bits_never_crash(name: str, cut: int | None, flips: list[tuple[int, int]]) -> None:
    damaged_reads_end_well(FORMATS[name][0], packed(name, count=20), cut, flips)


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(name: str, noise: bytes) -> None:
    with pytest.raises(FormatError):
        FORMATS[name][0](io.BytesIO(noise))


def test_numpy_arrays_are_accepted() -> None:
    coords = np.array([[1, 2, 3]])
    handle = io.BytesIO()
    voxel_io.write_vxz(handle, coords, {"a": np.array([[9]], np.uint8)})  # type: ignore[arg-type, dict-item]
    handle.seek(0)
    back, attrs = voxel_io.read_vxz(handle)
    assert back.tolist() == [[1, 2, 3]]
    assert attrs["a"].tolist() == [[9]]
