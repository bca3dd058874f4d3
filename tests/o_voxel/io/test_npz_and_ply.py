"""npz and ply: numpy's own view, dtypes, hostile headers."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from o_voxel.errors import ArgumentError, FormatError
from o_voxel.io import read_npz, read_ply, write_npz, write_ply

from .voxels import blob

DTYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.float32, torch.float64]


@pytest.mark.parametrize("compress", [True, False])
def test_numpy_reads_our_npz(compress: bool) -> None:
    coords, attrs = blob(20)
    handle = io.BytesIO()
    write_npz(handle, coords, attrs, compress=compress)
    handle.seek(0)
    with np.load(handle) as archive:
        assert archive["coord"].dtype == np.uint16
        assert archive["coord"].tolist() == coords.tolist()
        assert archive["base_color"].tolist() == attrs["base_color"].tolist()


def test_same_voxels_same_npz_bytes() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for handle in files:
        write_npz(handle, *blob(20))
    assert files[0].getvalue() == files[1].getvalue()


def test_npz_limits() -> None:
    with pytest.raises(ArgumentError, match="65535"):
        write_npz(io.BytesIO(), torch.tensor([[65536, 0, 0]]), {})
    with pytest.raises(ArgumentError, match="coord"):
        write_npz(io.BytesIO(), torch.tensor([[0, 0, 0]]), {"coord": torch.zeros((1, 1))})


def npz_of(**members: bytes) -> io.BytesIO:
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    handle.seek(0)
    return handle


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_objects_in_an_npz_are_never_unpickled() -> None:
    handle = io.BytesIO()
    np.savez(handle, coord=np.array([[{}, 1, 2]], dtype=object))
    handle.seek(0)
    with pytest.raises(FormatError, match="only numbers"):
        read_npz(handle)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1099511627776, 3)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 3)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1.5, 3)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': " + "(" * 5000 + "}",
        "{'descr': '(1000000,)<f8', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '<u2', 'shape': (2, 3)}",
        "__import__('os').getcwd()",
    ],
)
def test_hostile_npy_headers(header: str) -> None:
    with pytest.raises(FormatError):
        read_npz(npz_of(coord=npy(header, bytes(12))))


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 3)}", bytes(1 << 26))
    with pytest.raises(FormatError, match="3000 bytes"):
        read_npz(npz_of(coord=bomb))


def test_fortran_order_is_read() -> None:
    handle = io.BytesIO()
    np.savez(handle, coord=np.asfortranarray(np.arange(12).reshape(4, 3)))
    handle.seek(0)
    assert read_npz(handle)[0].tolist() == np.arange(12).reshape(4, 3).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ply_keeps_dtypes(dtype: torch.dtype) -> None:
    handle = io.BytesIO()
    values = torch.tensor([[1, 2], [3, 100]], dtype=dtype)
    write_ply(handle, torch.tensor([[0, 1, 2], [3, 4, 1000]]), {"a": values})
    handle.seek(0)
    coords, attrs = read_ply(handle)
    assert coords.tolist() == [[0, 1, 2], [3, 4, 1000]]
    assert attrs["a"].dtype == dtype
    assert torch.equal(attrs["a"], values)


def test_ply_attribute_names_that_begin_alike() -> None:
    handle = io.BytesIO()
    write_ply(handle, *blob(5))
    handle.seek(0)
    _, attrs = read_ply(handle)
    assert {name: a.shape[1] for name, a in attrs.items()} == {"base_color": 3, "base": 1, "roughness": 1}


def test_ply_limits() -> None:
    one = torch.tensor([[0, 0, 0]])
    with pytest.raises(ArgumentError, match="int64"):
        write_ply(io.BytesIO(), one, {"a": torch.zeros((1, 1), dtype=torch.int64)})
    with pytest.raises(ArgumentError, match="spaces"):
        write_ply(io.BytesIO(), one, {"a b": torch.zeros((1, 1))})
    with pytest.raises(ArgumentError, match="exactly"):
        write_ply(io.BytesIO(), one + (1 << 25), {})


def ply_of(*lines: str, data: bytes = bytes(64)) -> io.BytesIO:
    return io.BytesIO("\n".join(["ply", *lines, "end_header", ""]).encode() + data)


XYZ = ["property float x", "property float y", "property float z"]
LITTLE = "format binary_little_endian 1.0"


def test_big_endian_and_comments_are_read() -> None:
    data = np.array([[1, 2, 3]], ">f4").tobytes()
    handle = ply_of(
        "comment made by hand", "format binary_big_endian 1.0", "element vertex 1", *XYZ, data=data
    )
    assert read_ply(handle)[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "lines",
    [
        [LITTLE, "element vertex 99999999999", *XYZ],
        [LITTLE, "element vertex -1", *XYZ],
        [LITTLE, "element vertex 1", *XYZ[:2]],
        [LITTLE, "element vertex 1", *XYZ, "property float x"],
        [LITTLE, "element vertex 1", *XYZ, "property list uchar int vertex_indices"],
        [LITTLE, "element vertex 1", *XYZ, "property float a"],
        [LITTLE, "element vertex 1", *XYZ, "property float a_1"],
        [LITTLE, "element vertex 1", *XYZ, "element face 3"],
        ["format ascii 1.0", "element vertex 1", *XYZ],
        ["element vertex 1", *XYZ],
        [LITTLE, *XYZ],
    ],
)
def test_hostile_ply_headers(lines: list[str]) -> None:
    with pytest.raises(FormatError):
        read_ply(ply_of(*lines))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e9])
def test_ply_coordinates_that_are_no_integers(value: float) -> None:
    data = np.array([[value, 0, 0]], "<f4").tobytes()
    with pytest.raises(FormatError, match="32 bits"):
        read_ply(ply_of(LITTLE, "element vertex 1", *XYZ, data=data))
