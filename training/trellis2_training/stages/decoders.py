"""The shape decoder's last stage: the truth, taught from latents as the flow makes them.

A small flow's latents are not quite those of an encoder, and a decoder that has only seen the latter frays
their surfaces. Here it sees what the flow, given a picture, makes of partly noised latents in one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import PixelMap
from trellis2.errors import CheckpointError
from trellis2.pipelines.latents import LATENT_STRIDE
from trellis2.sparse import SparseSpatial2Channel, SparseTensor

from ..config import MiniConfig
from ..data.batches import Voxels, blocks_of, collate
from ..data.voxelize import VoxelObject, voxelize
from ..loop import Recipe
from ..losses import flow_pair
from ..runtime import Runtime
from .aligned import aligned_tokens
from .autoencoders import shape_losses
from .latents import LatentSet, restored, standardised
from .pictures import Pictures

_MOST_NOISE = 0.85  # of the way to pure noise, from which a flow can only tell the mean


class DecoderOnFlow:
    """The shape's decoder on a random block of each of a few objects.

    Objects take longer to voxelise than a step on them: some are kept, and every step brings a new one in.
    """

    name = "shape_decoder"
    recipe = Recipe(lr=1e-4, warmup=20)

    def __init__(
        self,
        config: MiniConfig,
        latents: LatentSet,
        pictures: Pictures,
        statistics: dict[str, Tensor],
        flow: nn.Module,
        pixel_map: PixelMap,
        runtime: Runtime,
        objects: int = 8,
        side: int = 256,
        seed: int = 0,
        most: int = 96,
    ) -> None:
        self.runtime, self.latents, self.pictures, self.flow = runtime, latents, pictures, flow
        self.pixel_map, self.grid = pixel_map, config.resolution // LATENT_STRIDE
        self.objects, self.resolution = objects, config.resolution
        self.side = min(side, config.resolution)
        self.statistics = {k: v.to(runtime.device) for k, v in statistics.items()}
        self.decoder = config.build("shape_dec")
        self.networks: dict[str, nn.Module] = {"shape_dec": self.decoder}
        self.most = max(most, objects)
        self.kept: list[tuple[int, list[VoxelObject]]] = []  # rows of the latent set, blocks
        self.factor = 2 ** (len(config.decoder_widths) - 1)
        self.generator = torch.Generator().manual_seed(seed * 6007 + runtime.rank)

    def losses(self, progress: float) -> dict[str, Tensor]:
        self._bring()
        while len(self.kept) < self.objects:
            self._bring()
        drawn = torch.randperm(len(self.kept), generator=self.generator)[: self.objects].tolist()
        chosen = [self.kept[i][0] for i in drawn]
        with torch.no_grad():
            coords, made = self._made(chosen)
            voxels, rows = self._blocks([self.kept[i][1] for i in drawn], coords)
            z = _coarsened(voxels.vertices, self.factor)
        if z.coords.shape[0] != rows.shape[0]:
            raise CheckpointError("latents.pt was not made from this world's objects; make it anew")
        return shape_losses(self.decoder, z.replace(made[rows]), voxels)

    def _bring(self) -> None:
        """One more object, in place of the oldest if need be."""
        row = int(torch.randint(len(self.latents), (), generator=self.generator))
        blocks = blocks_of(voxelize(self.latents.tables[row], self.resolution), self.side)
        self.kept = [*self.kept, (row, blocks)][-self.most :]

    def _made(self, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Coordinates with batch column `[T, 4]`, latents `[T, C]` as the flow makes them."""
        device, offsets = self.runtime.device, self.latents.offsets
        spans = [slice(int(offsets[i]), int(offsets[i + 1])) for i in chosen]
        sizes = torch.tensor([s.stop - s.start for s in spans])
        batch = torch.arange(len(chosen), dtype=torch.int32).repeat_interleave(sizes).to(device)
        coords = torch.cat([self.latents.coords[s].int() for s in spans])
        coords = torch.cat([batch[:, None], coords], 1)
        t = _MOST_NOISE * torch.rand(len(chosen), generator=self.generator).to(device)
        views = self.pictures.of(torch.tensor(chosen).to(device), self.generator)
        seen = aligned_tokens(self.pixel_map, views, coords, self.grid)
        truth = torch.cat([self.latents.shape[s] for s in spans])
        x0 = standardised(truth, "shape", self.statistics)
        times = t[batch.long()][:, None]
        x_t, _ = flow_pair(x0, torch.randn_like(x0), times)
        velocity = self.flow(SparseTensor(x_t, coords, len(chosen)), 1000 * t, seen).feats.float()
        return coords, restored(x_t - times * velocity, "shape", self.statistics)

    def _blocks(self, objects: list[list[VoxelObject]], coords: Tensor) -> tuple[Voxels, Tensor]:
        """A block of each object, large ones more often, and the rows of its latents among `coords`."""
        blocks: list[VoxelObject] = []
        rows = []
        for number, pieces in enumerate(objects):
            weights = torch.tensor([float(len(b.coords)) for b in pieces])
            block = pieces[int(torch.multinomial(weights, 1, generator=self.generator))]
            corner = block.coords[0] // self.side
            inside = (coords[:, 1:] // (self.side // self.factor) == corner).all(1) & (coords[:, 0] == number)
            blocks.append(block)
            rows.append(inside.nonzero()[:, 0])
        return collate(blocks, self.side), torch.cat(rows)


def _coarsened(x: SparseTensor, factor: int) -> SparseTensor:
    """The coarse voxels of `x`, which remember the fine ones, with features of no meaning."""
    merge = SparseSpatial2Channel()
    x = x.replace(x.feats[:, :1])
    while factor > 1:
        coarse = merge(x)
        x = coarse.replace(coarse.feats[:, :1])
        factor //= 2
    return x
