"""What the three formats share: opening files and checking arguments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import IO, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError

File = str | os.PathLike[str] | BinaryIO
Voxels = tuple[Tensor, dict[str, Tensor]]

MAX_BYTES = 1 << 32
"""Most bytes that a file may unpack to unless the caller allows more."""


@contextlib.contextmanager
def opened(file: File, mode: str) -> Iterator[IO[bytes]]:
    """A binary file from a path (closed afterwards) or a file object (left open)."""
    if isinstance(file, (str, os.PathLike)):
        with open(file, mode) as handle:
            yield handle
    else:
        yield file


def checked_voxels(
    coord: Tensor | np.ndarray, attr: Mapping[str, Tensor | np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Arguments of a writer as numpy: int64 coordinates `[N, 3]` and attributes `[N, C]`.

    Raises:
        ArgumentError: other shapes, rows that disagree, coordinates that are not integers.
    """
    coords = _array(coord)
    if coords.ndim != 2 or coords.shape[1] != 3 or coords.dtype.kind not in "iu":
        raise ArgumentError(f"coord must be integers [N, 3]; got {coords.dtype} {coords.shape}")
    attrs = {}
    for name, value in attr.items():
        array = _array(value)
        if array.ndim != 2 or len(array) != len(coords):
            raise ArgumentError(f"attribute {name!r} must be [{len(coords)}, C]; got {array.shape}")
        attrs[name] = array
    return coords.astype(np.int64), attrs


def _array(value: Tensor | np.ndarray) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of its own memory, in native byte order."""
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
