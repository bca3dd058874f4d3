"""The format of a voxel file, chosen by its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ArgumentError
from .files import Voxels
from .npz import read_npz, write_npz
from .ply import read_ply, write_ply
from .vxz import read_vxz, write_vxz

READERS: dict[str, Callable[..., Voxels]] = {".npz": read_npz, ".ply": read_ply, ".vxz": read_vxz}
WRITERS: dict[str, Callable[..., None]] = {".npz": write_npz, ".ply": write_ply, ".vxz": write_vxz}


def read(path: str | os.PathLike[str], **options: Any) -> Voxels:
    """Read voxels; the suffix (`.npz`, `.ply`, `.vxz`) chooses the format.

    Returns:
        coordinates `[N, 3]` int32 and attributes by name, each `[N, C]`.
    Raises:
        ArgumentError: another suffix.
        FormatError: the file is not what it claims to be.
    """
    return READERS[_suffix(path)](path, **options)


def write(path: str | os.PathLike[str], coord: Tensor, attr: Mapping[str, Tensor], **options: Any) -> None:
    """Write voxels; the suffix (`.npz`, `.ply`, `.vxz`) chooses the format, `options` are that writer's."""
    WRITERS[_suffix(path)](path, coord, attr, **options)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise ArgumentError(f"Unsupported file type {suffix or str(path)!r}: use .npz, .ply or .vxz")
    return suffix
