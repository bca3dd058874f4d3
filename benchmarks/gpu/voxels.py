"""A synthetic object's voxels at every level of the decoder, in the order the decoder makes them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from benchmarks.objects import distance_to_object
from trellis2.sparse import SparseTensor
from trellis2.sparse.neighbors import voxel_keys
from trellis2.sparse.resample import CHILDREN, Merge, child_index
from trellis2.sparse.tensor import ScaleCache

LEVELS = 4
TOKENS = {512: 2890, 1024: 12044}
"""The counts that the flows' targets were set for; the object has a few more."""


def surface_cells(resolution: int, device: str = "cuda", scale: float = 1.0) -> torch.Tensor:
    """Cells `[N, 3]` of a `resolution`^3 grid that the object's surface passes through.

    0.77 M at 512, four times as many at 1024; on the latent's grid 3,012 and 12,376. `scale` times as large,
    the object has about its square as many.
    """
    with torch.device(device):
        size = resolution
        while size % 2 == 0 and size > 32:
            size //= 2
        axis = torch.arange(size)
        cells = torch.cartesian_prod(axis, axis, axis)
        step = torch.cartesian_prod(*[torch.arange(2)] * 3)
        while size < resolution:
            distance = distance_to_object((cells + 0.5) / size - 0.5, scale)
            cells = cells[distance.abs() <= 0.87 / size]  # half a cell's diagonal
            cells = (2 * cells[:, None] + step).flatten(0, 1)
            size *= 2
        corners = torch.stack([distance_to_object((cells + corner) / size - 0.5, scale) for corner in step])
        return cells[(corners.amin(0) < 0) & (corners.amax(0) >= 0)].int()


@dataclass(frozen=True)
class Pyramid:
    """Voxels `[N, 4]` coarse to fine; each finer level follows its parents' order, then the child index."""

    coords: list[torch.Tensor]
    masks: list[torch.Tensor]  # [N, 8] bool, which children each voxel of the level has

    @property
    def tokens(self) -> int:
        return len(self.coords[0])

    @property
    def voxels(self) -> int:
        return len(self.coords[-1])

    def latent(self, channels: int, tokens: int | None = None) -> SparseTensor:
        """Random features on the coarsest voxels (the first `tokens` of them) with nothing cached."""
        coords = self.coords[0][:tokens]
        return SparseTensor(torch.randn(len(coords), channels, device=coords.device), coords, 1)

    def remembering_latent(self, channels: int) -> SparseTensor:
        """The same, remembering the finer voxels as an encoder's latent does; other tables start empty."""
        cache = {
            Fraction(2 ** (LEVELS - i)): ScaleCache(
                Merge(self.coords[i + 1], mask.flatten().nonzero().squeeze(1), len(mask))
            )
            for i, mask in enumerate(self.masks)
        }
        x = self.latent(channels)
        return SparseTensor(x.feats, x.coords, 1, scale=Fraction(2**LEVELS), cache=cache)

    def guides(self) -> list[SparseTensor]:
        """The subdivisions as a shape decoder returns them: above zero where a child exists."""
        return [
            SparseTensor(mask.half() - 0.5, coords, 1)
            for coords, mask in zip(self.coords, self.masks, strict=False)
        ]


def pyramid(resolution: int, device: str = "cuda", scale: float = 1.0) -> Pyramid:
    """The object at `resolution`, and its parents down to the latent's grid."""
    cells = surface_cells(resolution, device, scale)
    fine = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1)
    levels = [fine]
    for _ in range(LEVELS):
        parents = torch.unique(torch.cat([levels[0][:, :1], levels[0][:, 1:] >> 1], dim=1), dim=0)
        levels.insert(0, parents)
    coords, masks = [levels[0]], []
    for finer in levels[1:]:
        here = coords[-1]
        # Which row of `here` is each finer voxel's parent: both sides keyed alike, by one call.
        halves = torch.cat([finer[:, :1], finer[:, 1:] >> 1], dim=1)
        keys = voxel_keys(torch.cat([here, halves]))[0]
        sorted_keys, order = keys[: len(here)].sort()
        parent = order[torch.searchsorted(sorted_keys, keys[len(here) :])]
        slots = (parent * CHILDREN + child_index(finer)).sort()
        mask = torch.zeros(len(here) * CHILDREN, dtype=torch.bool, device=here.device)
        mask[slots.values] = True
        coords.append(finer[slots.indices])
        masks.append(mask.view(-1, CHILDREN))
    return Pyramid(coords, masks)
