"""Random voxel sets for the tests of sparse layers."""

from __future__ import annotations

import torch

from trellis2.sparse import SparseTensor


def random_coords(counts: list[int], size: int = 6, seed: int = 0) -> torch.Tensor:
    """`[T, 4]` int32: `counts[b]` distinct voxels of item b in a cube of `size`, in random row order."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for item, count in enumerate(counts):
        cells = torch.randperm(size**3, generator=generator)[:count]
        xyz = torch.stack([cells // size**2, cells // size % size, cells % size], dim=1)
        parts.append(torch.cat([torch.full((count, 1), item), xyz], dim=1))
    return torch.cat(parts).int()


def random_voxels(counts: list[int], channels: int, size: int = 6, seed: int = 0) -> SparseTensor:
    coords = random_coords(counts, size, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return SparseTensor(torch.randn(len(coords), channels, generator=generator), coords, len(counts))
