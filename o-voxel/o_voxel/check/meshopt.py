"""Decoders of glTF's EXT_meshopt_compression, written from the extension's specification of its bit streams.

Version 0 of attributes, 1 of triangles and of index sequences, the filters of vertex data. `postprocess`
has the encoders.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FormatError

_GROUP = 16
_LARGEST_BLOCK = 8192  # bytes
_BITS = {1: 2, 2: 4}  # of a value, for the modes of a group whose large values follow it


def decode(data: bytes, view: dict[str, Any]) -> bytes:
    """The bytes [count * byteStride] of a buffer view, from its stream. Raises FormatError."""
    count, stride, mode = int(view["count"]), int(view["byteStride"]), view["mode"]
    known = {"ATTRIBUTES": (0xA0, 64), "TRIANGLES": (0xE1, 12), "INDICES": (0xD1, 4)}
    if mode not in known:
        raise FormatError(f"meshopt mode {mode} is not known")
    header, densest = known[mode]  # bytes that one byte of a stream can stand for
    if not data or data[0] != header:
        raise FormatError(f"meshopt {mode}: version {data[:1].hex()} is not read here, only {header:x}")
    if count < 0 or not 1 <= stride <= 256 or count * stride > densest * len(data):
        raise FormatError(f"meshopt {mode}: {len(data)} bytes cannot hold {count} elements of {stride} bytes")
    if not count:
        return b""
    if mode == "ATTRIBUTES":
        if stride % 4:
            raise FormatError(f"meshopt ATTRIBUTES: a stride of {stride} bytes is no multiple of 4")
        return _filtered(decode_attributes(data, count, stride), view.get("filter", "NONE")).tobytes()
    if stride not in (2, 4):
        raise FormatError(f"meshopt {mode}: indices of {stride} bytes")
    numbers = decode_triangles(data, count) if mode == "TRIANGLES" else decode_sequence(data, count)
    return np.array(numbers, dtype=np.int64).astype(f"<u{stride}").tobytes()


def decode_attributes(data: bytes, count: int, stride: int) -> np.ndarray:
    """Elements [count, stride] uint8 of an ATTRIBUTES stream. Raises FormatError."""
    groups = -(-count // _GROUP)
    per_block = min((_LARGEST_BLOCK // stride) & ~(_GROUP - 1), 256) // _GROUP
    large = {
        mode: [sum(byte >> shift & (1 << bits) - 1 == (1 << bits) - 1 for shift in range(0, 8, bits))
               for byte in range(256)]
        for mode, bits in _BITS.items()
    }  # fmt: skip
    modes = np.zeros((stride, groups), np.int8)
    starts = np.zeros((stride, groups), np.int64)
    end = len(data) - max(32, stride)
    at = 1
    for first in range(0, groups, per_block):
        last = min(first + per_block, groups)
        for plane in range(stride):
            head = data[at : at + (last - first + 3) // 4]
            at += (last - first + 3) // 4
            for group in range(first, last):
                if at > end:
                    raise FormatError(f"meshopt ATTRIBUTES: the stream ends within element {group * _GROUP}")
                mode = head[(group - first) // 4] >> (group - first) % 4 * 2 & 3
                modes[plane, group], starts[plane, group] = mode, at
                if mode in _BITS:
                    packed, counts = 2 * _BITS[mode], large[mode]
                    at += packed + sum(counts[byte] for byte in data[at : at + packed])
                elif mode:
                    at += _GROUP
    if at > end:
        raise FormatError(f"meshopt ATTRIBUTES: {at} bytes are needed before the tail, {end} are there")
    steps = _group_values(np.frombuffer(data, np.uint8), modes, starts).reshape(stride, -1)[:, :count]
    deltas = (steps >> 1) ^ -(steps & 1)  # zigzag
    first_element = np.frombuffer(data, np.uint8)[-stride:].astype(np.int64)
    return (first_element + np.cumsum(deltas.T, axis=0)).astype(np.uint8)


def _group_values(data: np.ndarray, modes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Values [P, G, 16] int64 of groups with modes and first bytes [P, G]."""
    values = np.zeros((*modes.shape, _GROUP), np.int64)
    values[modes == 3] = data[starts[modes == 3][:, None] + np.arange(_GROUP)]
    for mode, bits in _BITS.items():
        here = modes == mode
        start = starts[here][:, None]
        packed = data[start + np.arange(2 * bits)]  # [K, bytes]
        shifts = np.arange(8 // bits - 1, -1, -1) * bits
        small = (packed[:, :, None] >> shifts & (1 << bits) - 1).reshape(-1, _GROUP).astype(np.int64)
        escaped = small == (1 << bits) - 1
        place = start + 2 * bits + np.cumsum(escaped, axis=1) - 1
        small[escaped] = data[place[escaped]]
        values[here] = small
    return values


def _filtered(elements: np.ndarray, name: str) -> np.ndarray:
    """Elements [N, stride] uint8 after a filter of the extension."""
    count, stride = elements.shape
    if name == "NONE":
        return elements
    if name == "OCTAHEDRAL" and stride in (4, 8):
        packed = elements.reshape(-1).view(f"<i{stride // 4}").reshape(count, 4)
        x, y, one = packed[:, :3].T.astype(np.float64)
        x, y = x / np.maximum(one, 1), y / np.maximum(one, 1)
        z = 1 - np.abs(x) - np.abs(y)
        fold = np.minimum(z, 0)
        normals = np.stack([x - np.copysign(fold, x), y - np.copysign(fold, y), z], axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
        out = packed.copy()
        out[:, :3] = np.rint(normals * np.iinfo(packed.dtype).max)
        return out
    if name == "EXPONENTIAL":
        numbers = elements.reshape(-1).view("<i4")
        return np.ldexp((numbers << 8 >> 8).astype(np.float32), numbers >> 24).astype("<f4")
    raise FormatError(f"meshopt filter {name} on elements of {stride} bytes is not read here")


def decode_triangles(data: bytes, count: int) -> list[int]:
    """Indices [count] of a TRIANGLES stream. Raises FormatError."""
    faces = count // 3
    if count % 3 or len(data) < 1 + faces + 16:
        raise FormatError(f"meshopt TRIANGLES: {len(data)} bytes for {count} indices")
    at, table = 1 + faces, data[-16:]
    edges = [(0, 0)] * 16  # the latest last, as of the vertices
    vertices = [0] * 16
    following = last = 0
    out: list[int] = []

    def explicit() -> int:
        nonlocal at, last
        step, at = _varint(data, at)
        last = (last + ((step >> 1) ^ -(step & 1))) & 0xFFFFFFFF
        return last

    for code in data[1 : 1 + faces]:
        if code < 0xF0:
            a, b = edges[-1 - (code >> 4)]
            low = code & 15
            if 0 < low < 13:
                c = vertices[-1 - low]
            else:
                if low == 0:
                    c, following = following, following + 1
                elif low == 15:
                    c = explicit()
                else:
                    c = last = last + (1 if low == 14 else -1)
                vertices = [*vertices[1:], c]
            edges = [*edges[2:], (c, b), (a, c)]
        else:
            if code < 0xFE:
                pair = table[code & 15]
            else:
                pair, at = data[at], at + 1
                following = following if pair else 0
            corners, pushed = [], []
            for slot in (15 if code == 0xFF else 0, pair >> 4, pair & 15):
                if 0 < slot < 15:
                    corners.append(vertices[-slot])
                    continue
                if slot:
                    corners.append(explicit())
                else:
                    corners.append(following)
                    following += 1
                pushed.append(corners[-1])
            a, b, c = corners
            vertices = [*vertices[len(pushed) :], *pushed]
            edges = [*edges[3:], (b, a), (c, b), (a, c)]
        out += (a, b, c)
    return out


def decode_sequence(data: bytes, count: int) -> list[int]:
    """Indices [count] of an INDICES stream: steps from one of two numbers. Raises FormatError."""
    at, latest = 1, [0, 0]
    out = []
    for _ in range(count):
        step, at = _varint(data, at)
        which, step = step & 1, step >> 1
        latest[which] = (latest[which] + ((step >> 1) ^ -(step & 1))) & 0xFFFFFFFF
        out.append(latest[which])
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of 7 bits a byte, lowest first, and the place after it."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise FormatError("meshopt: the stream ends within an index")
