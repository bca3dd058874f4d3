"""`SparseTensor`: a batch of voxels with features, and what is known about their coordinates."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch

from ..errors import InvalidArgumentError

Made = TypeVar("Made")


@dataclass
class ScaleCache:
    """What is known about the coordinates of one scale."""

    merge: Any = None  # resample.Merge: how this scale came from the finer one
    memo: dict[tuple[str, torch.device], Any] = field(default_factory=dict)  # tables that only save time


class SparseTensor:
    """Features on the occupied voxels of a batch of grids.

    `feats` is `[T, C]` (or `[T, ...]`), `coords` `[T, 4]` int32 with columns batch, x, y, z. Rows of one item
    are contiguous and items come in order; inside an item any row order is legal and is kept by every layer
    but spatial-to-channel. `scale` counts how coarse the grid has become since the tensor was made. The
    cache, keyed by scale, travels with everything derived from the tensor on the same voxels.

    Raises InvalidArgumentError when feats and coords disagree.
    """

    def __init__(
        self,
        feats: torch.Tensor,
        coords: torch.Tensor,
        batch_size: int | None = None,
        *,
        scale: Fraction = Fraction(1),
        cache: dict[Fraction, ScaleCache] | None = None,
    ) -> None:
        if coords.ndim != 2 or coords.shape[1] != 4:
            raise InvalidArgumentError(
                f"coords must be [T, 4] (batch, x, y, z), got {list(coords.shape)}; prepend a batch column"
            )
        if feats.ndim < 1 or feats.shape[0] != coords.shape[0]:
            raise InvalidArgumentError(
                f"feats has shape {list(feats.shape)} but coords has {coords.shape[0]} rows; they must match"
            )
        if coords.dtype != torch.int32:
            if coords.dtype.is_floating_point or coords.dtype == torch.bool:
                raise InvalidArgumentError(f"coords must be integers, got {coords.dtype}")
            coords = coords.int()
        self.feats = feats
        self.coords = coords
        self.scale = scale
        self._cache: dict[Fraction, ScaleCache] = {} if cache is None else cache
        self._batch_size = batch_size
        self.expansion: Any = None
        """Of subdivision logits: the finer voxels they led to (`resample.Expansion`). Not inherited."""

    # ---- what it is ----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.feats.device

    @property
    def dtype(self) -> torch.dtype:
        return self.feats.dtype

    @property
    def batch_size(self) -> int:
        """Number of items: as given, or the largest batch index + 1."""
        if self._batch_size is None:
            self._batch_size = int(self.coords[:, 0].max()) + 1 if len(self.coords) else 0
        return self._batch_size

    @property
    def shape(self) -> torch.Size:
        """`[B, *feats.shape[1:]]`."""
        return torch.Size([self.batch_size, *self.feats.shape[1:]])

    @property
    def lengths(self) -> list[int]:
        """Voxels of each item. Raises InvalidArgumentError when the rows of an item are not contiguous."""
        return list(self.cached("lengths", lambda: _item_lengths(self.coords, self.batch_size)))

    @property
    def layout(self) -> list[slice]:
        """The rows of each item."""
        ends = list(accumulate(self.lengths, initial=0))
        return [slice(start, stop) for start, stop in pairwise(ends)]

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Largest coordinate + 1 on each axis, over the whole batch; halved (rounded up) by
        spatial-to-channel.
        """

        def measure() -> tuple[int, int, int]:
            if not len(self.coords):
                return (0, 0, 0)
            x, y, z = (self.coords[:, 1:].amax(0) + 1).tolist()
            return (x, y, z)

        return self.cached("spatial_shape", measure, per_device=False)

    def __len__(self) -> int:
        return self.batch_size

    def __repr__(self) -> str:
        return (
            f"SparseTensor({self.feats.shape[0]} voxels, feats {list(self.feats.shape)} {self.dtype}, "
            f"scale {self.scale}, {self.device})"
        )

    # ---- the cache -----------------------------------------------------------------------------------------

    @property
    def scale_cache(self) -> ScaleCache:
        """The cache entry of this tensor's scale, made on first use."""
        return self._cache.setdefault(self.scale, ScaleCache())

    def cached(self, name: str, build: Callable[[], Made], *, per_device: bool = True) -> Made:
        """A value that depends on the coordinates alone: built once a scale (and device), then shared."""
        memo = self.scale_cache.memo
        key = (name, self.device if per_device else torch.device("cpu"))
        if key not in memo:
            # What inference builds may serve training later, which inference tensors cannot.
            with torch.inference_mode(False):
                memo[key] = build()
        made: Made = memo[key]
        return made

    def clear_spatial_cache(self) -> None:
        """Forget everything about the coordinates, finer scales included: a later channel-to-spatial must
        predict.
        """
        self._cache = {}

    def at_scale(self, feats: torch.Tensor, coords: torch.Tensor, scale: Fraction) -> SparseTensor:
        """Other voxels of the same object at another scale, with this tensor's cache."""
        return SparseTensor(feats, coords, self._batch_size, scale=scale, cache=self._cache)

    # ---- same voxels, other features -----------------------------------------------------------------------

    def replace(self, feats: torch.Tensor, coords: torch.Tensor | None = None) -> SparseTensor:
        """The same voxels with new features `[T, ...]`; shares the cache.

        `coords` may be given when they are the same voxels held elsewhere (another device).
        """
        coords = self.coords if coords is None else coords
        return SparseTensor(feats, coords, self._batch_size, scale=self.scale, cache=self._cache)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """As `torch.Tensor.to` on the features; coordinates follow the device and stay int32."""
        feats = self.feats.to(*args, **kwargs)
        return self.replace(feats, self.coords.to(feats.device))

    def type(self, dtype: torch.dtype) -> SparseTensor:
        return self.replace(self.feats.to(dtype))

    def float(self) -> SparseTensor:
        return self.type(torch.float32)

    def half(self) -> SparseTensor:
        return self.type(torch.float16)

    def cpu(self) -> SparseTensor:
        return self.to("cpu")

    def cuda(self) -> SparseTensor:
        return self.to("cuda")

    def detach(self) -> SparseTensor:
        return self.replace(self.feats.detach())

    # ---- arithmetic ----------------------------------------------------------------------------------------

    def broadcast_per_item(self, values: torch.Tensor) -> torch.Tensor:
        """Rows `[T, ...]` (or `[1, ...]` where one row serves all) of per-item values `[B, ...]`.

        Values must broadcast to `[B, *feats.shape[1:]]`; raises InvalidArgumentError otherwise.
        """
        if values.ndim < self.feats.ndim:
            values = values.reshape((1,) * (self.feats.ndim - values.ndim) + tuple(values.shape))
        fits = values.ndim == self.feats.ndim and all(
            have in (1, want) for have, want in zip(values.shape, self.shape, strict=True)
        )
        if not fits:
            raise InvalidArgumentError(
                f"a dense tensor of shape {list(values.shape)} does not broadcast to {list(self.shape)} "
                "(batch, channels); index it to one row an item"
            )
        return values if values.shape[0] == 1 else values[self.coords[:, 0].long()]

    def _combine(self, other: Any, operation: Callable[[Any, Any], Any], swap: bool = False) -> SparseTensor:
        if isinstance(other, SparseTensor):
            if other.feats.shape[0] != self.feats.shape[0]:
                raise InvalidArgumentError(
                    f"sparse tensors with {self.feats.shape[0]} and {other.feats.shape[0]} voxels cannot be "
                    "combined row by row; they must hold the same voxels in the same order"
                )
            value: Any = other.feats
        elif isinstance(other, torch.Tensor) and other.ndim > 0:
            value = self.broadcast_per_item(other)
        else:
            value = other
        return self.replace(operation(value, self.feats) if swap else operation(self.feats, value))

    def __neg__(self) -> SparseTensor:
        return self.replace(-self.feats)

    def __add__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.add)

    def __radd__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.add, swap=True)

    def __sub__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.sub)

    def __rsub__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.sub, swap=True)

    def __mul__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.mul)

    def __rmul__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.mul, swap=True)

    def __truediv__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.truediv)

    def __rtruediv__(self, other: Any) -> SparseTensor:
        return self._combine(other, operator.truediv, swap=True)

    # ---- reductions: one value an item ---------------------------------------------------------------------

    def _reduce(self, name: str, dim: int | Sequence[int] | None, keepdim: bool) -> torch.Tensor:
        rank = self.feats.ndim
        dims = range(1, rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
        dims = sorted({d % rank for d in dims}, reverse=True)
        if 0 in dims:
            raise InvalidArgumentError("reductions are per item: dim must hold channel axes (>= 1), got 0")
        rows = self.feats
        for axis in dims:
            rows = getattr(rows, name)(axis, keepdim=keepdim)
        if not self.batch_size:
            return rows
        return torch.stack([getattr(rows[item], name)(0) for item in self.layout])

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> torch.Tensor:
        """Per item, over the given channel axes (all by default), then over its voxels: `[B]`, or `[B, 1]`
        kept.
        """
        return self._reduce("mean", dim, keepdim)

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> torch.Tensor:
        """As `mean`, summing."""
        return self._reduce("sum", dim, keepdim)

    def prod(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> torch.Tensor:
        """As `mean`, multiplying."""
        return self._reduce("prod", dim, keepdim)

    def std(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> torch.Tensor:
        """Population standard deviation per item, `sqrt(mean(x^2) - mean(x)^2)`."""
        mean = self.mean(dim, keepdim)
        squares = self.replace(self.feats**2).mean(dim, keepdim)
        return (squares - mean**2).clamp_min(0).sqrt()

    # ---- batches -------------------------------------------------------------------------------------------

    def __getitem__(self, index: int | slice | Sequence[int] | torch.Tensor) -> SparseTensor:
        """A sub-batch: batch column renumbered from 0, with a cache of its own."""
        items = _item_indices(index, self.batch_size)
        layout = self.layout
        feats = [self.feats[layout[i]] for i in items]
        coords = [_with_batch(self.coords[layout[i]], new) for new, i in enumerate(items)]
        if not items:
            return SparseTensor(self.feats[:0], self.coords[:0], 0, scale=self.scale)
        return SparseTensor(torch.cat(feats), torch.cat(coords), len(items), scale=self.scale)

    def __iter__(self) -> Iterator[SparseTensor]:
        return (self[i] for i in range(self.batch_size))

    def dense(self, size: Sequence[int] | None = None) -> torch.Tensor:
        """The volume `[B, C, X, Y, Z]`, zero where no voxel is; `size` defaults to `spatial_shape`."""
        x, y, z = self.spatial_shape if size is None else size
        volume = self.feats.new_zeros(self.batch_size, x, y, z, *self.feats.shape[1:])
        volume[tuple(self.coords.long().unbind(1))] = self.feats
        return volume.movedim(4, 1) if self.feats.ndim > 1 else volume


def sparse_cat(tensors: Sequence[SparseTensor], dim: int = 0) -> SparseTensor:
    """Stack batches (`dim=0`), or join the features of tensors on the same voxels (other dims, first one's
    coords).
    """
    if not tensors:
        raise InvalidArgumentError("sparse_cat needs at least one tensor, got none")
    first = tensors[0]
    if dim != 0:
        rows = [t.feats.shape[0] for t in tensors]
        if len(set(rows)) != 1:
            raise InvalidArgumentError(f"features can only be joined on the same voxels, got {rows} voxels")
        return first.replace(torch.cat([t.feats for t in tensors], dim=dim))
    coords, start = [], 0
    for t in tensors:
        shift = torch.zeros(4, dtype=torch.int32, device=t.coords.device)
        shift[0] = start
        coords.append(t.coords + shift)
        start += t.batch_size
    return SparseTensor(torch.cat([t.feats for t in tensors]), torch.cat(coords), start, scale=first.scale)


def _item_lengths(coords: torch.Tensor, batch_size: int) -> list[int]:
    batch = coords[:, 0].long()
    if len(batch):
        largest, disorder = torch.stack([batch.max(), (batch.diff() < 0).sum()]).tolist()
        if disorder:
            raise InvalidArgumentError(
                "rows of a batch item must be contiguous and items in order; sort the rows by batch index"
            )
        if largest >= batch_size:
            raise InvalidArgumentError(f"batch index {largest} in coords, but the batch size is {batch_size}")
    lengths: list[int] = torch.bincount(batch, minlength=batch_size).tolist()
    return lengths


def _item_indices(index: int | slice | Sequence[int] | torch.Tensor, batch_size: int) -> list[int]:
    if isinstance(index, slice):
        return list(range(batch_size))[index]
    if isinstance(index, torch.Tensor):
        chosen = index.nonzero().flatten() if index.dtype == torch.bool else index.flatten()
        if index.dtype == torch.bool and index.numel() != batch_size:
            raise InvalidArgumentError(f"a mask of {index.numel()} items for a batch of {batch_size}")
        wanted: list[int] = chosen.tolist()
    elif isinstance(index, int):
        wanted = [index]
    else:
        wanted = [int(i) for i in index]
    for i in wanted:
        if not -batch_size <= i < batch_size:
            raise IndexError(f"item {i} of a batch of {batch_size}")
    return [i % batch_size for i in wanted]


def _with_batch(coords: torch.Tensor, batch: int) -> torch.Tensor:
    coords = coords.clone()
    coords[:, 0] = batch
    return coords
