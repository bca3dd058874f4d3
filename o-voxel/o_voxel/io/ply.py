"""ply: one binary element `vertex`, voxel coordinates as x y z and a property per attribute channel."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO

import numpy as np
from torch import Tensor

from ..errors import ArgumentError, FormatError
from .files import MAX_BYTES, File, Voxels, as_tensor, checked_voxels, opened

MAX_HEADER = 1 << 20
_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
_NAMES = {code: name for name, code in _TYPES.items()}
_ALIASES = {
    "int8": "char",
    "uint8": "uchar",
    "int16": "short",
    "uint16": "ushort",
    "int32": "int",
    "uint32": "uint",
    "float32": "float",
    "float64": "double",
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def write_ply(file: File, coord: Tensor, attr: Mapping[str, Tensor]) -> None:
    """Write voxels as binary ply; `x y z` are the integer coordinates as float32.

    Args:
        file: a path or a binary file.
        coord: `[N, 3]`, at most 2^24 in magnitude (what float32 holds exactly).
        attr: attributes `[N, C]` by name, 8, 16 or 32 bit integers, float32 or float64.
    Raises:
        ArgumentError: shapes that disagree, another dtype, a name with white space.
    """
    coords, attrs = checked_voxels(coord, attr)
    if coords.size and np.abs(coords).max() > 1 << 24:
        raise ArgumentError(f"coordinates reach {np.abs(coords).max()}; float32 holds {1 << 24} exactly")
    order = "<" if sys.byteorder == "little" else ">"
    columns: list[tuple[str, str, np.ndarray]] = [("xyz"[k], "f4", coords[:, k]) for k in range(3)]
    for name, array in attrs.items():
        code = array.dtype.str[1:]
        if code not in _NAMES:
            raise ArgumentError(f"attribute {name!r} has dtype {array.dtype}; ply holds {', '.join(_NAMES)}")
        if not name or not name.isascii() or any(c.isspace() for c in name):
            raise ArgumentError(f"attribute name {name!r}: use ASCII without spaces")
        columns += [(f"{name}_{k}", code, array[:, k]) for k in range(array.shape[1])]
    table = np.empty(len(coords), [(name, order + code) for name, code, _ in columns])
    for name, _, values in columns:
        table[name] = values
    kind = next(k for k, v in _ORDERS.items() if v == order)
    lines = ["ply", f"format {kind} 1.0", f"element vertex {len(coords)}"]
    lines += [f"property {_NAMES[code]} {name}" for name, code, _ in columns]
    with opened(file, "wb") as handle:
        handle.write("\n".join([*lines, "end_header", ""]).encode("ascii"))
        handle.write(table.tobytes())


def read_ply(file: File, max_bytes: int = MAX_BYTES) -> Voxels:
    """Read a binary ply of voxels.

    Args:
        file: a path or a binary file.
        max_bytes: most bytes that the vertices may take.
    Returns:
        coordinates int32 `[N, 3]` (x y z rounded) and attributes by name (channels `<name>_0`, `<name>_1`).
    Raises:
        FormatError: not such a file, truncated, or larger than allowed.
    """
    with opened(file, "rb") as handle:
        dtype, count = _read_header(handle)
        size = count * dtype.itemsize
        if size > max_bytes:
            raise FormatError(f"{count} vertices take {size} bytes, more than {max_bytes}: raise max_bytes")
        data = handle.read(size)
    if len(data) != size:
        raise FormatError(f"{count} vertices take {size} bytes, but {len(data)} follow the header")
    table = np.frombuffer(data, dtype)
    position = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if not (np.abs(position) < 1 << 31).all():  # NaN fails too
        raise FormatError("coordinates are not finite or do not fit in 32 bits")
    return as_tensor(np.round(position).astype(np.int32)), _stack_channels(table)


def _read_header(handle: IO[bytes]) -> tuple[np.dtype, int]:
    left = MAX_HEADER

    def line() -> list[str]:
        nonlocal left
        raw = handle.readline(left)
        left -= len(raw)
        if not raw.endswith(b"\n"):
            raise FormatError(f"no ply header ends within {MAX_HEADER} bytes")
        return raw.decode("latin-1").split()

    if handle.read(3) != b"ply" or line():
        raise FormatError("not a ply file")
    order, count = "", -1
    fields: list[tuple[str, str]] = []
    while (words := line()) != ["end_header"]:
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and words[1] == "vertex" and count < 0:
            if not words[2].isdigit() or len(words[2]) > 12:
                raise FormatError(f"vertex count {words[2][:20]!r} is not a number")
            count = int(words[2])
        elif words[0] == "property" and len(words) == 3 and count >= 0:
            kind = _ALIASES.get(words[1], words[1])
            if kind not in _TYPES:
                raise FormatError(f"property type {words[1][:20]!r} is not read")
            fields.append((words[2], order + _TYPES[kind]))
        else:
            raise FormatError(f"unexpected ply header line {' '.join(words)[:60]!r}")
    names = [name for name, _ in fields]
    if not order or count < 0 or len(set(names)) != len(names) or not {"x", "y", "z"} <= set(names):
        raise FormatError("a binary ply with one element vertex and distinct properties x, y, z is needed")
    return np.dtype(fields), count


def _stack_channels(table: np.ndarray) -> dict[str, Tensor]:
    """Properties `<name>_<channel>` grouped by exact name, channels in order."""
    groups: dict[str, dict[int, np.ndarray]] = {}
    for field in table.dtype.names or ():
        if field in ("x", "y", "z"):
            continue
        name, _, channel = field.rpartition("_")
        if not name or not channel.isdigit() or len(channel) > 6:
            raise FormatError(f"property {field[:40]!r} is not <name>_<channel>")
        groups.setdefault(name, {})[int(channel)] = table[field]
    attrs = {}
    for name, channels in groups.items():
        if sorted(channels) != list(range(len(channels))):
            raise FormatError(
                f"attribute {name[:40]!r} has channels {sorted(channels)[:8]}: some are missing"
            )
        attrs[name] = as_tensor(np.stack([channels[k] for k in range(len(channels))], axis=1))
    return attrs
