"""Voxel coordinates as one integer along a space-filling curve: z-order (Morton) and Hilbert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import ArgumentError

MODES = ("z_order", "hilbert")
STANDARD_BITS = 10  # codes of 10 bits an axis fit in int32 and are what stored files use
MAX_BITS = 19


def encode_seq(
    coords: Tensor, permute: Sequence[int] = (0, 1, 2), mode: str = "z_order", bits: int = STANDARD_BITS
) -> Tensor:
    """Codes of voxel coordinates.

    Args:
        coords: integer `[N, 3]`, each at least 0 and below `2 ** bits`.
        permute: which column plays x, y and z.
        mode: `z_order` (x in the highest bit of each triple) or `hilbert` (Skilling 2004).
        bits: bits an axis. The standard 10 give int32; up to 19 give int64, with the same codes for
            coordinates below 1024.
    Returns:
        int32 or int64 `[N]`.
    Raises:
        ArgumentError: coordinates out of range, an unknown mode or permutation.
    """
    order = _checked(permute, mode, bits)
    if coords.dim() != 2 or coords.shape[1] != 3 or coords.is_floating_point():
        raise ArgumentError(f"coords must be integers [N, 3]; got {coords.dtype} {tuple(coords.shape)}")
    if len(coords):
        low, high = int(coords.min()), int(coords.max())
        if low < 0 or high >= 1 << bits:
            raise ArgumentError(f"coordinates span {low} to {high}; bits={bits} holds 0 to {(1 << bits) - 1}")
    axes = [coords[:, p].long() for p in order]
    if mode == "hilbert":
        axes = _hilbert_transpose(axes, _levels(bits))
    code = (_spread(axes[0]) << 2) | (_spread(axes[1]) << 1) | _spread(axes[2])
    return code.int() if bits <= STANDARD_BITS else code


def decode_seq(
    code: Tensor, permute: Sequence[int] = (0, 1, 2), mode: str = "z_order", bits: int = STANDARD_BITS
) -> Tensor:
    """Coordinates of codes, int32 `[N, 3]`; the inverse of `encode_seq` with the same arguments."""
    order = _checked(permute, mode, bits)
    if code.dim() != 1 or code.is_floating_point():
        raise ArgumentError(f"code must be integers [N]; got {code.dtype} {tuple(code.shape)}")
    code = code.long()
    if len(code) and (int(code.min()) < 0 or int(code.max()) >> (3 * _levels(bits))):
        raise ArgumentError(
            f"codes span {int(code.min())} to {int(code.max())}: more than {bits} bits an axis"
        )
    axes = [_gather(code >> 2), _gather(code >> 1), _gather(code)]
    if mode == "hilbert":
        axes = _hilbert_axes(axes, _levels(bits))
    return torch.stack([axes[order.index(column)] for column in range(3)], dim=1).int()


def _checked(permute: Sequence[int], mode: str, bits: int) -> list[int]:
    if mode not in MODES:
        raise ArgumentError(f"unknown mode {mode!r}: one of {', '.join(MODES)}")
    if sorted(permute) != [0, 1, 2]:
        raise ArgumentError(f"permute must order 0, 1 and 2; got {list(permute)}")
    if not 1 <= bits <= MAX_BITS:
        raise ArgumentError(f"bits must be 1 to {MAX_BITS}; got {bits}")
    return list(permute)


def _levels(bits: int) -> int:
    """Levels of the curve: 10, then steps of 3, after which the curve's start is oriented as before."""
    return STANDARD_BITS + 3 * max(0, -(-(bits - STANDARD_BITS) // 3))


def _hilbert_transpose(x: list[Tensor], levels: int) -> list[Tensor]:
    """Coordinates to the transposed Hilbert index."""
    x = list(x)
    for level in range(levels - 1, 0, -1):
        x = _undo_level(x, 1 << level, range(3))
    x[1] = x[1] ^ x[0]
    x[2] = x[2] ^ x[1]
    t = torch.zeros_like(x[0])
    for level in range(levels - 1, 0, -1):
        t ^= torch.where(x[2] & (1 << level) != 0, (1 << level) - 1, 0)
    return [a ^ t for a in x]


def _hilbert_axes(x: list[Tensor], levels: int) -> list[Tensor]:
    """The transposed Hilbert index to coordinates."""
    t = x[2] >> 1
    x = [x[0] ^ t, x[1] ^ x[0], x[2] ^ x[1]]
    for level in range(1, levels):
        x = _undo_level(x, 1 << level, range(2, -1, -1))
    return x


def _undo_level(x: list[Tensor], bit: int, axes: range) -> list[Tensor]:
    """Flip or exchange the low bits of one level, an axis at a time."""
    x, low = list(x), bit - 1
    for i in axes:
        flip = x[i] & bit != 0
        swap = torch.where(flip, 0, (x[0] ^ x[i]) & low)
        x[0] = x[0] ^ torch.where(flip, low, swap)
        if i:
            x[i] = x[i] ^ swap
    return x


_SPREADS = (  # shift and mask of each doubling, for 21 bits in 63
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def _spread(x: Tensor) -> Tensor:
    """Two zero bits between the bits of each number."""
    for shift, mask in _SPREADS:
        x = (x | (x << shift)) & mask
    return x


def _gather(x: Tensor) -> Tensor:
    """Every third bit of each number, closed up."""
    x = x & _SPREADS[-1][1]
    for (shift, _), (_, mask) in zip(
        reversed(_SPREADS), [*reversed(_SPREADS[:-1]), (0, 0x1FFFFF)], strict=True
    ):
        x = (x | (x >> shift)) & mask
    return x
