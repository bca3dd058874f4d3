"""Voxels for file tests, and damage to do to files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from o_voxel.errors import FormatError

Reader = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]


def blob(count: int = 300, span: int = 40, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Distinct voxels in random order with three uint8 attributes, smooth enough for filters to matter."""
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(span**3, generator=generator)[:count]
    coords = torch.stack((picked // span**2, picked // span % span, picked % span), dim=1).int()
    color = (coords * 6 % 256).to(torch.uint8)
    return coords, {"base_color": color, "base": color[:, :1] // 2, "roughness": color[:, 1:2].clone()}


def rows(coords: torch.Tensor, attrs: dict[str, torch.Tensor]) -> set[tuple[Any, ...]]:
    """Voxels with their attributes, whatever the order."""
    table = torch.cat((coords.long(), *(attrs[name].long() for name in sorted(attrs))), dim=1)
    return set(map(tuple, table.tolist()))


def damaged_reads_end_well(read: Reader, data: bytes, cut: int | None, flips: list[tuple[int, int]]) -> None:
    """Read a damaged file: either it is refused with FormatError, or what comes back is consistent."""
    broken = bytearray(data if cut is None else data[: cut % len(data)])
    for at, bit in flips:
        if broken:
            broken[at % len(broken)] ^= 1 << (bit % 8)
    try:
        coords, attrs = read(io.BytesIO(bytes(broken)), max_bytes=1 << 24)
    except FormatError:
        return
    assert coords.dtype == torch.int32
    assert coords.shape[1] == 3
    assert all(len(value) == len(coords) and value.dim() == 2 for value in attrs.values())
