"""Batches from the world, made on the training device while training: tables, voxels, pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..sparse import SparseSpatial2Channel, SparseTensor
from . import render as rd
from . import world
from .voxelize import VoxelObject, voxelize
from .world import table as tb


class TableBank:
    """Tables of many objects on a device, drawn from at random with fresh colours."""

    def __init__(self, tables: Tensor, device: torch.device, seed: int) -> None:
        self.tables = tables.to(device)
        self.generator = torch.Generator().manual_seed(seed)  # on the CPU: same draws on every device

    def __len__(self) -> int:
        return len(self.tables)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Random objects: their rows in the bank `[count]` and tables `[count, K, ROW]`, half of them
        recoloured.
        """
        rows = torch.randint(len(self.tables), (count,), generator=self.generator).to(self.tables.device)
        return rows, self.recoloured(self.tables[rows])

    def recoloured(self, tables: Tensor) -> Tensor:
        """Half of the objects with their colour channels permuted: other colours, same contrasts."""
        shuffled = torch.rand((len(tables), 3), generator=self.generator).argsort(1)
        keep = torch.rand((len(tables), 1), generator=self.generator) < 0.5
        order = torch.where(keep, torch.arange(3), shuffled).to(tables.device)
        order = order[:, None].expand(-1, tables.shape[1], -1)
        tables = tables.clone()
        for first in (tb.BASE, tb.SECOND):
            tables[..., first : first + 3] = tables[..., first : first + 3].gather(2, order)
        return tables


def load_or_make_bank(path: Path, count: int, workers: int) -> Tensor:
    """Tables of the first `count` training objects, from `path` when it holds that many."""
    if path.exists():
        tables: Tensor = torch.load(path, map_location="cpu", weights_only=True)
        if len(tables) >= count:
            return tables[:count]
    tables = world.table_bank(0, count, workers)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tables, path)
    return tables


@dataclass(frozen=True)
class Voxels:
    """A batch of objects on one grid, as the autoencoders take it; all three share one spatial cache."""

    vertices: SparseTensor  # [T, 3] 0..1
    intersected: SparseTensor  # [T, 3] bool
    attributes: SparseTensor  # [T, 6] in -1..1


def collate(objects: list[VoxelObject]) -> Voxels:
    """Stack objects with a batch column, and build what every layer will ask of the coordinates."""
    columns = [torch.full_like(o.coords[:, :1], i) for i, o in enumerate(objects)]
    coords = torch.cat([torch.cat([c, o.coords], 1) for c, o in zip(columns, objects, strict=True)])
    vertices = SparseTensor(torch.cat([o.vertices for o in objects]), coords, len(objects))
    prepare_cache(vertices, objects[0].resolution)
    attributes = vertices.replace(torch.cat([o.attributes for o in objects]) * 2 - 1)
    return Voxels(vertices, vertices.replace(torch.cat([o.intersected for o in objects])), attributes)


def prepare_cache(x: SparseTensor, resolution: int, levels: int = 5) -> None:
    """Fill the neighbour tables of all scales through a dense lookup grid: one pass, no searching (CUDA
    only).
    """
    if not x.feats.is_cuda:
        return
    down = SparseSpatial2Channel()
    for level in range(levels):
        table = dense_neighbor_table(x.coords, x.batch_size, max(resolution >> level, 1))
        x.cached("neighbors", lambda table=table: table)  # type: ignore[misc]
        if level < levels - 1:
            coarse = down(x.replace(x.feats[:, :1]))
            x = coarse.replace(coarse.feats[:, :1])


def dense_neighbor_table(coords: Tensor, batch: int, resolution: int) -> Tensor:
    """The same as `sparse.neighbors.neighbor_table`, by a dense grid of row numbers with an empty margin."""
    count, side = coords.shape[0], resolution + 2
    grid = torch.zeros(batch * side**3, dtype=torch.int32, device=coords.device)
    b, x, y, z = coords.long().unbind(1)
    keys = ((b * side + x + 1) * side + y + 1) * side + z + 1
    grid[keys] = torch.arange(1, count + 1, dtype=torch.int32, device=coords.device)
    step = torch.arange(-1, 2, device=coords.device)
    offsets = (step[:, None, None] * side * side + step[None, :, None] * side + step).reshape(-1)
    found = grid[keys[:, None] + offsets]
    return torch.where(found == 0, count, found - 1)


class VoxelPool:
    """Voxelised objects to draw batches from: every batch brings one new object in, older ones fill it up.

    An object takes many small launches to voxelise, so that most of a batch comes from the pool, recoloured.
    """

    def __init__(self, bank: TableBank, resolution: int, most_voxels: int = 300_000_000) -> None:
        self.bank, self.resolution, self.most = bank, resolution, most_voxels
        self.objects: list[VoxelObject] = []
        self.total = 0

    def batch(self, budget: int, limit: int) -> Voxels:
        """Distinct objects until their voxels come near `budget` or there are `limit`; one at least."""
        newest = self._grow()
        chosen, total = [newest], newest.coords.shape[0]
        for i in torch.randperm(len(self.objects) - 1, generator=self.bank.generator).tolist():
            made = self.objects[i]
            if len(chosen) == limit or total + made.coords.shape[0] > budget:
                break
            chosen.append(self._recoloured(made))
            total += made.coords.shape[0]
        while len(self.objects) == len(chosen) and len(chosen) < limit and total < 0.7 * budget:
            chosen.append(self._grow())  # a young pool
            total += chosen[-1].coords.shape[0]
        return collate(chosen)

    def _grow(self) -> VoxelObject:
        made = voxelize(self.bank.draw(1)[1][0], self.resolution)
        self.total += made.coords.shape[0]
        while self.objects and self.total > self.most:
            self.total -= self.objects.pop(0).coords.shape[0]
        self.objects.append(made)
        return made

    def _recoloured(self, made: VoxelObject) -> VoxelObject:
        order = torch.randperm(3, generator=self.bank.generator).tolist()
        return replace(made, attributes=made.attributes[:, [*order, 3, 4, 5]])


def picture_batch(bank: TableBank, tables: Tensor, size: int, shadows: bool = True) -> rd.Picture:
    """One random view of each object, cropped as the pipeline crops, as it comes from an imperfect matte."""
    generator, device = bank.generator, tables.device
    view = rd.random_views(len(tables), generator, device)
    lights = rd.random_lights(view, generator)
    view = rd.jittered(rd.crop_view(tables, view, min(128, size)), generator)
    return rd.render(tables, view, lights, size, shadows=shadows)


def as_photographed(picture: rd.Picture, generator: torch.Generator) -> Tensor:
    """The pixels `[B, 3, S, S]` with gain, blur and noise as cameras, scalers and codecs add them."""
    rgb, count = picture.rgb, len(picture.rgb)

    def each(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand((count, channels, 1, 1), generator=generator) * (high - low) + low
        return drawn.to(rgb.device)

    rgb = rgb * each(0.92, 1.08) * each(0.97, 1.03, 3)
    blurred = torch.nn.functional.avg_pool2d(rgb, 3, stride=1, padding=1)
    rgb = rgb + each(0, 1) ** 2 * (blurred - rgb)
    noise = torch.randn(rgb.shape, device=rgb.device) * each(0, 0.015) * picture.mask
    return (rgb + noise).clamp(0, 1)
