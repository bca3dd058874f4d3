"""Batches from the world, made on the training device while training: tables, voxels, pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from trellis2.sparse import SparseSpatial2Channel, SparseTensor

from .. import world
from ..world import table as tb
from . import looks
from . import render as rd
from .voxelize import VoxelObject, voxelize


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
        order = channel_orders(len(tables), self.generator).to(tables.device)
        order = order[:, None].expand(-1, tables.shape[1], -1)
        tables = tables.clone()
        for first in (tb.BASE, tb.SECOND):
            tables[..., first : first + 3] = tables[..., first : first + 3].gather(2, order)
        return tables


def channel_orders(count: int, generator: torch.Generator) -> Tensor:
    """An order of the three colour channels for each of `count` objects `[count, 3]`: half keep theirs."""
    shuffled = torch.rand((count, 3), generator=generator).argsort(1)
    keep = torch.rand((count, 1), generator=generator) < 0.5
    return torch.where(keep, torch.arange(3), shuffled)


def load_or_make_bank(path: Path, count: int, workers: int, first: int = 0) -> Tensor:
    """Tables of `count` training objects from number `first` on, from `path` when it holds that many."""
    if path.exists():
        tables: Tensor = torch.load(path, map_location="cpu", weights_only=True)
        if len(tables) >= count:
            return tables[:count]
    tables = world.table_bank(first, count, workers)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tables, path)
    return tables


@dataclass(frozen=True)
class Voxels:
    """A batch of objects on one grid, as the autoencoders take it; all three share one spatial cache."""

    vertices: SparseTensor  # [T, 3] 0..1
    intersected: SparseTensor  # [T, 3] bool
    attributes: SparseTensor  # [T, 6] in -1..1


def collate(objects: list[VoxelObject], side: int | None = None) -> Voxels:
    """Stack objects with a batch column, and build what every layer will ask of the coordinates.

    With `side` the objects are blocks of that size, and coordinates count from their block's corner.
    """
    coords = torch.cat([o.coords for o in objects])
    sizes = torch.tensor([len(o.coords) for o in objects]).to(coords.device)
    column = torch.repeat_interleave(sizes.int(), output_size=len(coords))
    coords = torch.cat([column[:, None].int(), coords if side is None else coords % side], 1)
    vertices = SparseTensor(torch.cat([o.vertices for o in objects]), coords, len(objects))
    prepare_cache(vertices, side or objects[0].resolution)
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
    """Blocks of voxelised objects to draw batches from; every batch brings one new object in.

    An object takes many small launches to voxelise, and at full resolution it alone would fill a batch:
    blocks of many objects, recoloured, teach more.
    """

    def __init__(
        self, bank: TableBank, resolution: int, most_voxels: int = 200_000_000, least_objects: int = 24
    ) -> None:
        self.bank, self.resolution, self.most, self.least = bank, resolution, most_voxels, least_objects
        self.side = resolution
        self.objects: list[list[VoxelObject]] = []  # each in blocks
        self.total = 0

    def cut_into(self, side: int) -> None:
        """Make blocks of `side` voxels a side (a power of two), at most the whole grid."""
        side = min(side, self.resolution)
        if side != self.side:
            self.objects = [blocks_of(joined(blocks), side) for blocks in self.objects]
            self.side = side

    def batch(self, budget: int) -> Voxels:
        """Random blocks until their voxels come near `budget`; one at least."""
        self._grow()
        while len(self.objects) < self.least:
            self._grow()
        blocks = [block for made in self.objects for block in made]
        chosen: list[VoxelObject] = []
        total = 0
        for i in torch.randperm(len(blocks), generator=self.bank.generator).tolist():
            total += blocks[i].coords.shape[0]
            if chosen and total > budget:
                break
            chosen.append(blocks[i])
        voxels = collate(chosen, self.side)
        return replace(voxels, attributes=self._recoloured(voxels.attributes))

    def _grow(self) -> None:
        made = voxelize(self.bank.draw(1)[1][0], self.resolution)
        self.total += made.coords.shape[0]
        while self.objects and self.total > self.most:
            self.total -= sum(block.coords.shape[0] for block in self.objects.pop(0))
        self.objects.append(blocks_of(made, self.side))

    def _recoloured(self, attributes: SparseTensor) -> SparseTensor:
        """Every block with its colour channels in an order of its own."""
        order = torch.rand((attributes.batch_size, 3), generator=self.bank.generator).argsort(1)
        order = torch.cat([order, torch.tensor([[3, 4, 5]]).expand(len(order), 3)], 1).to(attributes.device)
        rows = order[attributes.coords[:, 0].long()]
        return attributes.replace(attributes.feats.gather(1, rows))


def blocks_of(made: VoxelObject, side: int) -> list[VoxelObject]:
    """Cut an object along a grid of blocks; coordinates stay those of the whole."""
    across = -(-made.resolution // side)
    block, within = made.coords.long() // side, made.coords.long() % side
    numbers = [(x[:, 0] * n + x[:, 1]) * n + x[:, 2] for x, n in ((block, across), (within, side))]
    order = (numbers[0] * side**3 + numbers[1]).argsort()
    counts = torch.unique_consecutive(numbers[0][order], return_counts=True)[1].tolist()
    parts = [x[order].split(counts) for x in (made.coords, made.vertices, made.intersected, made.attributes)]
    return [VoxelObject(c, v, i, a, made.resolution) for c, v, i, a in zip(*parts, strict=True)]


def joined(blocks: list[VoxelObject]) -> VoxelObject:
    """The object that blocks were cut from, its rows in their order."""
    return VoxelObject(
        torch.cat([b.coords for b in blocks]),
        torch.cat([b.vertices for b in blocks]),
        torch.cat([b.intersected for b in blocks]),
        torch.cat([b.attributes for b in blocks]),
        blocks[0].resolution,
    )


def picture_batch(bank: TableBank, tables: Tensor, size: int, shadows: bool = True) -> rd.Picture:
    """One random view of each object, cropped as the pipeline crops, as it comes from an imperfect matte."""
    return view_batch(bank, tables, size, shadows)[1]


def view_batch(
    bank: TableBank, tables: Tensor, size: int, shadows: bool = True
) -> tuple[rd.View, rd.Picture]:
    """The same with the views."""
    generator, device = bank.generator, tables.device
    view = rd.random_views(len(tables), generator, device)
    lights = rd.varied_lights(view, generator)
    view = rd.jittered(rd.crop_view(tables, view, min(128, size)), generator)
    return view, rd.render(tables, view, lights, size, shadows=shadows)


def as_photographed(picture: rd.Picture, generator: torch.Generator) -> Tensor:
    """The pixels `[B, 3, S, S]` as people bring them: gain, blur and noise as of cameras; some with
    another renderer's look, errors of the matte, too much or too little light, a small size, or JPEG.
    """
    rgb, count, device = picture.rgb, len(picture.rgb), picture.rgb.device

    def each(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand((count, channels, 1, 1), generator=generator) * (high - low) + low
        return drawn.to(rgb.device)

    if (rows := looks.some(count, looks.LOOKS, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, looks.other_looks(picture, rows, generator))
    if (rows := looks.some(count, looks.MATTES, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, looks.imperfect_mattes(rgb[rows], picture.mask[rows], generator))
    if (rows := looks.some(count, looks.EXPOSED, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, (rgb * each(0.75, 1.25) * each(0.92, 1.08, 3))[rows])
    rgb = rgb * each(0.92, 1.08) * each(0.97, 1.03, 3)
    blurred = torch.nn.functional.avg_pool2d(rgb, 3, stride=1, padding=1)
    rgb = rgb + each(0, 1) ** 2 * (blurred - rgb)
    noise = torch.randn(rgb.shape, device=rgb.device) * each(0, 0.015) * picture.mask
    rgb = (rgb + noise).clamp(0, 1)
    if (rows := looks.some(count, looks.SOFT / 3, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, looks.softened(rgb[rows], generator))
    if (rows := looks.some(count, looks.SOFT, generator, device)) is not None:
        rgb = rgb.index_copy(0, rows, looks.jpeg(rgb[rows], generator))
    return rgb * torch.nn.functional.max_pool2d(picture.mask, 9, stride=1, padding=4).ceil()
