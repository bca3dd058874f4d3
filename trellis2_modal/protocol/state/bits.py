"""Reversible array filters that turn slowly changing numbers into long runs of zeros, which LZ4 likes.

LZ4 has no entropy coder, so noise must be kept apart from structure: bit planes do that, byte planes only
halfway.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]


def _transpose_8x8(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Transpose each word as an 8x8 bit matrix; its own inverse (three delta swaps, Hacker's Delight 7-3)."""
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swap = (words ^ (words >> np.uint64(shift))) & np.uint64(mask)
        words = words ^ swap ^ (swap << np.uint64(shift))
    return words


def to_bit_planes(values: U8) -> U8:
    """`[n]` bytes to `[8, ceil(n / 8)]`: row k holds bit k of every value."""
    groups = -(-len(values) // 8)
    padded = np.zeros(groups * 8, np.uint8)
    padded[: len(values)] = values
    words = _transpose_8x8(padded.view("<u8"))
    return np.ascontiguousarray(words.view(np.uint8).reshape(groups, 8).T)


def from_bit_planes(planes: U8, count: int) -> U8:
    """The inverse: the first `count` values."""
    words = np.ascontiguousarray(planes.T).reshape(-1).view("<u8")
    return _transpose_8x8(words).view(np.uint8)[:count]


def plane_length(count: int) -> int:
    """Bytes in one bit plane of `count` values."""
    return -(-count // 8)


def split_bytes(values: U32) -> list[U8]:
    """The four byte planes of 32-bit numbers, low byte first."""
    quads = np.ascontiguousarray(values, dtype="<u4").view(np.uint8).reshape(-1, 4)
    return [np.ascontiguousarray(quads[:, k]) for k in range(4)]


def join_bytes(planes: list[U8]) -> U32:
    return np.stack(planes, axis=1).view("<u4").reshape(-1)


def zigzag8(delta: U8) -> U8:
    """Signed differences modulo 256 to small numbers: 0, -1, 1, -2 ... to 0, 1, 2, 3 ..."""
    return (delta << np.uint8(1)) ^ (delta.view(np.int8) >> np.int8(7)).view(np.uint8)


def unzigzag8(code: U8) -> U8:
    return (code >> np.uint8(1)) ^ (np.uint8(0) - (code & np.uint8(1)))


def zigzag32(delta: U32) -> U32:
    return (delta << np.uint32(1)) ^ (delta.view(np.int32) >> np.int32(31)).view(np.uint32)


def unzigzag32(code: U32) -> U32:
    return (code >> np.uint32(1)) ^ (np.uint32(0) - (code & np.uint32(1)))


def difference(values: np.ndarray) -> np.ndarray:
    """Differences of neighbours modulo the type's range; the first stays."""
    out = values.copy()
    out[1:] -= values[:-1]
    return out


def ordered_bits(values: npt.NDArray[np.float32]) -> U32:
    """Finite floats as whole numbers in the same order, bit for bit reversible."""
    raw = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    negative = (raw >> np.uint32(31)).astype(bool)
    return np.where(negative, ~raw, raw | np.uint32(0x80000000))


def from_ordered_bits(order: U32) -> npt.NDArray[np.float32]:
    positive = (order >> np.uint32(31)).astype(bool)
    raw = np.where(positive, order & np.uint32(0x7FFFFFFF), ~order)
    return np.ascontiguousarray(raw, dtype="<u4").view("<f4")
