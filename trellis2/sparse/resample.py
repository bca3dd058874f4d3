"""Spatial-to-channel and back: halving the grid by stacking children, doubling it by unstacking them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InvalidArgumentError
from .neighbors import CHILDREN, Origin, voxel_keys
from .tensor import SparseTensor


@dataclass(frozen=True)
class Merge:
    """How fine voxels became coarse ones; kept at the coarse scale for the way back."""

    fine_coords: torch.Tensor  # [T, 4] int32, the encoder's own row order
    slots: torch.Tensor  # [T] int64, 8 * parent row + child index
    parents: int

    def to(self, device: torch.device) -> Merge:
        if self.slots.device == device:
            return self
        return Merge(self.fine_coords.to(device), self.slots.to(device), self.parents)

    def subdivision(self) -> torch.Tensor:
        """Which children each parent has, `[parents, 8]` bool."""
        mask = torch.zeros(self.parents * CHILDREN, dtype=torch.bool, device=self.slots.device)
        mask[self.slots] = True
        return mask.view(self.parents, CHILDREN)


def child_index(coords: torch.Tensor) -> torch.Tensor:
    """0..7 for each voxel `[T, 4]`: x is bit 0, y bit 1, z bit 2."""
    bits = (coords[:, 1:] & 1).long()
    return bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]


def _merge(coords: torch.Tensor) -> tuple[torch.Tensor, Merge]:
    """Parents `[N, 4]`, sorted by (batch, x, y, z), and the way back."""
    halves = coords.clone()
    halves[:, 1:] = coords[:, 1:] >> 1
    if not len(coords):
        return halves, Merge(coords, torch.empty(0, dtype=torch.int64, device=coords.device), 0)
    keys, order = voxel_keys(halves)[0].sort()
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    parent = torch.empty_like(keys)
    parent[order] = first.cumsum(0) - 1
    parents = halves[order[first]]
    return parents, Merge(coords, parent * CHILDREN + child_index(coords), parents.shape[0])


class SparseSpatial2Channel(nn.Module):
    """`[T, C]` to `[N, 8C]` on the halved grid: child k fills channels `kC .. (k+1)C-1`, the rest is zero.

    Parents come out sorted by (batch, x, y, z). The coarse scale remembers the fine voxels, so that
    `SparseChannel2Spatial` can restore them.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:
        channels = x.feats.shape[1]
        coarse_scale = x.scale * 2
        known = x.at_scale(x.feats, x.coords, coarse_scale).scale_cache
        if known.merge is None:
            known.memo["coords", x.device], known.merge = _merge(x.coords)
            halved = tuple((size + 1) // 2 for size in x.spatial_shape)
            known.memo["spatial_shape", torch.device("cpu")] = halved
        merge = known.merge.to(x.device)
        if ("coords", x.device) not in known.memo:
            known.memo["coords", x.device] = _merge(x.coords)[0]
        parents: torch.Tensor = known.memo["coords", x.device]
        slots = x.feats.new_zeros(merge.parents * CHILDREN, channels).index_copy(0, merge.slots, x.feats)
        return x.at_scale(slots.view(merge.parents, CHILDREN * channels), parents, coarse_scale)


class SparseChannel2Spatial(nn.Module):
    """`[N, 8C]` to `[T, C]` on the doubled grid.

    When the tensor still remembers the finer voxels it came from, exactly those are restored in their own
    order and `subdivision` is ignored. Otherwise child k of row n exists where `subdivision[n, k]`; rows
    follow parents, then ascending k; and the result starts with an empty cache.

    Raises InvalidArgumentError when there is neither memory nor a `[N, 8]` mask.
    """

    def forward(self, x: SparseTensor, subdivision: torch.Tensor | None = None) -> SparseTensor:
        return Expansion.of(x, subdivision).apply(x.feats)


@dataclass(frozen=True)
class Expansion:
    """The finer voxels of a tensor, decided once and applied to any features on it."""

    template: SparseTensor  # fine coords with the cache they live in; its feats are the slots themselves
    slots: torch.Tensor  # [T] int64

    @classmethod
    def of(cls, x: SparseTensor, subdivision: torch.Tensor | None = None) -> Expansion:
        """From the memory of the coarse scale, or from a `[N, 8]` boolean mask."""
        merge: Merge | None = x.scale_cache.merge
        fine_scale = x.scale / 2
        if merge is not None:
            merge = merge.to(x.device)
            restored = x.at_scale(merge.slots, merge.fine_coords, fine_scale)
            Origin.remember(restored, x, merge.slots)
            return cls(restored, merge.slots)
        if subdivision is None:
            raise InvalidArgumentError(
                "channel-to-spatial needs a subdivision mask: this tensor does not remember finer voxels"
            )
        if subdivision.shape != (x.coords.shape[0], CHILDREN):
            raise InvalidArgumentError(
                f"subdivision has shape {list(subdivision.shape)}, expected [{x.coords.shape[0]}, "
                f"{CHILDREN}]: guides must have the same voxels in the same order"
            )
        parent, child = subdivision.nonzero(as_tuple=True)
        coords = x.coords[parent]
        bits = torch.stack([child & 1, child >> 1 & 1, child >> 2], dim=1)
        coords[:, 1:] = 2 * coords[:, 1:] + bits.int()
        slots = parent * CHILDREN + child
        made = SparseTensor(slots, coords, x.batch_size, scale=fine_scale)
        Origin.remember(made, x, slots)
        return cls(made, slots)

    @classmethod
    def following(cls, x: SparseTensor, logits: SparseTensor | None) -> Expansion:
        """From logits `[N, 8]` (above 0: the child exists) on the same voxels; memory goes first, as in `of`.

        The logits keep the result, so that whoever follows them too gets the same finer voxels together with
        the neighbour tables made meanwhile. It lives as long as the logits, not as long as `x`.
        """
        mask = None if logits is None else logits.feats > 0
        if logits is None or mask is None or x.scale_cache.merge is not None or torch.is_grad_enabled():
            return cls.of(x, mask)
        known: Expansion | None = logits.expansion
        if known is None or not (known._fits(x, mask) and torch.equal(logits.coords, x.coords)):
            logits.expansion = known = cls.of(x, mask)
        return known

    def _fits(self, x: SparseTensor, mask: torch.Tensor) -> bool:
        """Whether this is what `of` would make for voxels with the same coords as when it was made."""
        same = self.template.scale == x.scale / 2 and self.template.batch_size == x.batch_size
        return (
            same
            and self.slots.device == x.device
            and torch.equal(self.slots, mask.flatten().nonzero().squeeze(1))
        )

    def apply(self, feats: torch.Tensor) -> SparseTensor:
        """Features `[N, 8C]` of the coarse voxels as `[T, C]` on the fine ones."""
        if feats.shape[1] % CHILDREN:
            raise InvalidArgumentError(f"{feats.shape[1]} channels do not split among {CHILDREN} children")
        return self.template.replace(feats.reshape(feats.shape[0] * CHILDREN, -1)[self.slots])


def true_subdivision(x: SparseTensor) -> torch.Tensor | None:
    """Which children `[N, 8]` the remembered finer voxels occupy; None when the tensor remembers none."""
    merge: Merge | None = x.scale_cache.merge
    return None if merge is None else merge.to(x.device).subdivision()
