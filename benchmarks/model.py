"""The sparse core at the size of a 512 object: neighbour table and one convolution."""

from __future__ import annotations

import numpy as np
import torch

from trellis2.sparse import SparseConv3d, SparseTensor, neighbor_table, neighbor_table_of

from .record import Record, median_seconds

VOXELS = 750_000


def sphere_coords(count: int, resolution: int = 512, seed: int = 0) -> torch.Tensor:
    """`[count, 4]` int32: voxels of a spherical shell, in an order as the decoder leaves them (child by
    child).
    """
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(8 * count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cells = np.unique(((0.425 * directions + 0.5) * resolution).astype(np.int64), axis=0)[:count]
    if len(cells) < count:
        raise ValueError(f"only {len(cells)} of {count} voxels at resolution {resolution}")
    key = np.zeros(count, dtype=np.int64)
    for level in range(resolution.bit_length() - 2, -1, -1):
        bits = cells >> level & 1
        key = key * 8 + bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]
    cells = cells[np.argsort(key)]
    return torch.from_numpy(np.concatenate([np.zeros((count, 1)), cells], axis=1).astype(np.int32))


def neighbor_table_seconds(coords: torch.Tensor) -> dict[str, float]:
    """Wall time of building the table, and the share of the 27 neighbours that exist."""
    seconds = median_seconds(lambda: neighbor_table(coords))
    present = (neighbor_table(coords) < len(coords)).float().mean().item()
    return {"seconds": seconds, "neighbors": 27 * present}


@torch.inference_mode()
def convolution_seconds(coords: torch.Tensor, channels: int = 32) -> dict[str, float]:
    """Wall time of one convolution in float32, its table at hand."""
    x = SparseTensor(torch.randn(len(coords), channels), coords)
    conv = SparseConv3d(channels, channels)
    neighbor_table_of(x)
    return {"seconds": median_seconds(lambda: conv(x))}


def run() -> list[Record]:
    torch.manual_seed(0)
    coords = sphere_coords(VOXELS)
    table = neighbor_table_seconds(coords)
    threads = f"{torch.get_num_threads()} threads"
    note = f"{table['neighbors']:.1f} of 27 neighbours present, {threads}"
    return [
        Record("neighbour table, 0.75 M voxels", table["seconds"], "s", 1.5, note),
        *(
            Record(
                f"convolution {c} to {c}, 0.75 M voxels, fp32",
                convolution_seconds(coords, c)["seconds"],
                "s",
                0.6 if c == 32 else None,
                threads,
            )
            for c in (16, 32, 64)
        ),
    ]
