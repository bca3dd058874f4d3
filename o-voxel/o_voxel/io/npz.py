"""npz: a zip of numpy arrays, `coord` in 16 bits and one member an attribute."""

from __future__ import annotations

import ast
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO

import numpy as np
from torch import Tensor

from ..errors import ArgumentError, FormatError
from .files import MAX_BYTES, File, Voxels, as_tensor, checked_voxels, opened

MAX_MEMBERS = 1024
_HEADER_LIMIT = 1 << 16
# What zipfile raises for one damaged byte or another.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    OverflowError,
)
_KINDS = "buif"  # no objects: reading an array must never run anything


def write_npz(file: File, coord: Tensor, attr: Mapping[str, Tensor], compress: bool = True) -> None:
    """Write voxels as npz.

    Args:
        file: a path or a binary file.
        coord: `[N, 3]`, each 0 to 65535.
        attr: attributes `[N, C]` by name, kept in their dtype.
        compress: deflate the members.
    Raises:
        ArgumentError: coordinates that 16 bits cannot hold, an attribute called `coord`, shapes that
        disagree.
    """
    coords, attrs = checked_voxels(coord, attr)
    if "coord" in attrs:
        raise ArgumentError("an attribute cannot be called 'coord'")
    if coords.size and (coords.min() < 0 or coords.max() > 0xFFFF):
        raise ArgumentError(f"coordinates span {coords.min()} to {coords.max()}; npz holds 0 to 65535")
    arrays = {"coord": coords.astype(np.uint16)} | attrs
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with opened(file, "wb") as handle, zipfile.ZipFile(handle, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:  # as numpy.savez does
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(file: File, max_bytes: int = MAX_BYTES) -> Voxels:
    """Read an npz of voxels.

    Args:
        file: a path or a binary file.
        max_bytes: most bytes that all arrays may take.
    Returns:
        coordinates int32 `[N, 3]` and attributes by name in their dtype.
    Raises:
        FormatError: not such a file, damaged, or larger than allowed.
    """
    arrays: dict[str, np.ndarray] = {}
    with opened(file, "rb") as handle:
        try:
            with zipfile.ZipFile(handle) as archive:
                members = archive.infolist()
                if len(members) > MAX_MEMBERS:
                    raise FormatError(f"{len(members)} arrays; at most {MAX_MEMBERS} are read")
                for member in members:
                    name = member.filename.removesuffix(".npy")
                    if name in arrays:
                        raise FormatError(f"array {name!r} appears twice")
                    with archive.open(member) as stream:
                        arrays[name] = _read_array(stream, name, max_bytes)
                    max_bytes -= arrays[name].nbytes
        except FormatError:
            raise
        except _DAMAGE as error:
            raise FormatError(f"not a readable npz file: {error}") from error
    if "coord" not in arrays:
        raise FormatError(f"no array 'coord' among {sorted(arrays)[:8]}")
    coords = arrays.pop("coord")
    if coords.ndim != 2 or coords.shape[1] != 3 or coords.dtype.kind not in "iu":
        raise FormatError(f"coord must be integers [N, 3]; got {coords.dtype} {coords.shape}")
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != len(coords):
            raise FormatError(f"attribute {name!r} has shape {array.shape}; coord has {len(coords)} rows")
    return as_tensor(coords.astype(np.int32)), {name: as_tensor(array) for name, array in arrays.items()}


def _read_array(stream: IO[bytes], name: str, max_bytes: int) -> np.ndarray:
    """One array; its header's size is checked against `max_bytes` before anything is unpacked."""
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise FormatError(f"array {name!r} is not in npy format")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _HEADER_LIMIT:
        raise FormatError(f"array {name!r} declares a header of {length} bytes; at most {_HEADER_LIMIT}")
    dtype, shape, fortran = _parse_header(stream.read(length), name)
    count = 1
    for size in shape:
        count *= size
    size = count * dtype.itemsize
    if size > max_bytes:
        raise FormatError(
            f"array {name!r} unpacks to {size} bytes, more than the {max_bytes} left: raise max_bytes"
        )
    data = stream.read(size)
    if len(data) != size or stream.read(1):
        raise FormatError(f"array {name!r} should hold {size} bytes and does not")
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _parse_header(text: bytes, name: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode("utf-8").strip())
        dtype = np.dtype(header["descr"])
        shape, fortran = header["shape"], header["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise FormatError(f"array {name!r} has an unreadable header: {error}") from error
    valid = isinstance(shape, tuple) and len(shape) <= 8 and isinstance(fortran, bool)
    if not valid or not all(type(size) is int and 0 <= size <= 1 << 40 for size in shape):
        raise FormatError(f"array {name!r} has an unreadable shape")
    if dtype.kind not in _KINDS or dtype.subdtype is not None:
        raise FormatError(f"array {name!r} has dtype {dtype}; only numbers are read")
    return dtype, shape, fortran
