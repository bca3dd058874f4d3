"""The training of the two structured-latent flows, pixel-aligned: each voxel reads the picture where the
camera shows it.

In training the camera is the true one, moved by what the camera head may be wrong about; the crop's window is
found from the voxels, as in the pipeline. The pixel map learns along with the flows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trellis2.conditioning.pixel_map import PixelMap, voxel_features
from trellis2.nn.tokens import PixelTokens
from trellis2.pipelines.latents import LATENT_STRIDE
from trellis2.sparse import SparseTensor

from ..config import MiniConfig
from ..loop import Recipe
from ..losses import flow_pair, shifted_times
from ..runtime import Runtime
from .latents import LatentSet, standardised
from .pictures import MapHead, Pictures, Views, jittered, map_terms, start_map

FLOWS = {"shape_flow": "shape", "tex_flow": "texture"}
BOTH = "slat_flows"  # the stage that trains both
_DROPPED = 0.1  # of the conditions
_BUCKETS = 32
_STRONGEST = {"shape_flow": 0.0, "tex_flow": 0.4}  # of the times: whether the texture's first step finds the
# colours is what counts most


class AlignedFlows:
    """The shape's flow, the texture's or both, with the pixel map that they read.

    Batches hold objects of similar size, cut to the smallest by leaving out a few random voxels. One length a
    batch means one attention call a layer; the cut is a few per cent and acts as augmentation. Objects are
    sorted into buckets by size, with one length and one number of objects each: attention kernels are planned
    anew for every shape, which takes longer than a step.
    """

    recipe = Recipe(lr=6e-4, weight_decay=0.01, betas=(0.9, 0.95), warmup=200)

    def __init__(
        self,
        name: str,
        config: MiniConfig,
        latents: LatentSet,
        statistics: dict[str, Tensor],
        encoder: nn.Module,
        runtime: Runtime,
        views: int = 4,
        budget: int = 48_000,
        seed: int = 0,
        every: int = 8,
        batch: int = 64,
    ) -> None:
        self.name, self.runtime, self.latents, self.budget = name, runtime, latents, budget
        self.flows: dict[str, Any] = {n: config.build(n) for n in FLOWS if name in (n, BOTH)}
        self.truth = {
            kind: standardised(getattr(latents, kind), kind, statistics).half() for kind in FLOWS.values()
        }
        self.sizes = latents.offsets.diff()
        self.buckets = self.sizes.argsort().tensor_split(min(_BUCKETS, len(self.sizes)))
        self.generator = torch.Generator().manual_seed(seed * 7919 + runtime.rank)
        self.every, self.steps, self.grid = every, 0, config.resolution // LATENT_STRIDE
        self.pixel_map: Any = config.build("pixel_map")
        start_map(self.pixel_map, encoder)
        self.map_head = MapHead(config.pixel_map.out)
        self.networks: dict[str, nn.Module] = {
            **self.flows,
            "pixel_map": self.pixel_map,
            "map_head": self.map_head,
        }
        # Pictures come in as many batch sizes as there are buckets: trying kernels for each costs too much.
        torch.backends.cudnn.benchmark = False
        self.pictures = Pictures(config, latents, encoder, runtime, views, batch, seed)

    def _objects(self) -> tuple[Tensor, int]:
        """Objects of one batch and their common length."""
        bucket = self.buckets[int(torch.randint(len(self.buckets), (), generator=self.generator))]
        length = int(self.sizes[bucket[0]])
        batch = min(max(self.budget // length, 1), 96)
        return bucket[torch.randint(len(bucket), (batch,), generator=self.generator)], length

    def losses(self, progress: float) -> dict[str, Tensor]:
        self.steps += 1
        if self.steps % self.every == 0:
            self.pictures.renew(self.generator)
        chosen, length = self._objects()
        device = self.runtime.device
        rows = torch.cat(
            [
                torch.randperm(int(self.sizes[i]), generator=self.generator)[:length].sort().values
                + self.latents.offsets[i]
                for i in chosen.tolist()
            ]
        ).to(device)
        batch = len(chosen)
        column = torch.arange(batch, device=device, dtype=torch.int32).repeat_interleave(length)[:, None]
        coords = torch.cat([column, self.latents.coords[rows].int()], 1)
        views = self.pictures.of(chosen.to(device), self.generator)
        condition, terms = self.condition(views, coords[:, 1:].unflatten(0, (batch, length)))
        shape = self.truth["shape"][rows].float()
        base = SparseTensor(shape, coords, batch)
        for name, flow in self.flows.items():
            x0 = self.truth[FLOWS[name]][rows].float()
            t = shifted_times(batch, device, strongest=_STRONGEST[name])
            x_t, target = flow_pair(x0, torch.randn_like(x0), t.repeat_interleave(length)[:, None])
            concat = base if name == "tex_flow" else None
            velocity = flow(base.replace(x_t), 1000 * t, condition, concat_cond=concat)
            terms[FLOWS[name]] = (velocity.feats.float() - target).square().mean()
        return terms

    def condition(self, views: Views, coords: Tensor) -> tuple[PixelTokens, dict[str, Tensor]]:
        """What the flows see of pictures of objects with voxels `coords [B, L, 3]`, and the map's terms."""
        tokens = views.tokens.float()
        maps = self.pixel_map(views.pictures.float() / 255, tokens)
        features = voxel_features(maps, coords, self.grid, jittered(views.camera()))
        keep = (torch.rand(len(tokens), 1, 1, device=tokens.device) >= _DROPPED).float()
        condition = PixelTokens(tokens * keep, (features * keep).flatten(0, 1))
        return condition, map_terms(self.map_head(maps), views.maps.float() / 255)


def aligned_tokens(pixel_map: PixelMap, views: Views, coords: Tensor, grid: int) -> PixelTokens:
    """What flows see of pictures of objects with voxels `coords [T, 4]`, grouped by object."""
    tokens = views.tokens.float()
    maps, camera = pixel_map(views.pictures.float() / 255, tokens), jittered(views.camera())
    features = []
    for i in range(len(tokens)):
        its = type(camera)(*(angle[i : i + 1] for angle in vars(camera).values()))
        own = coords[coords[:, 0] == i][None, :, 1:]
        features.append(voxel_features(maps[i : i + 1], own, grid, its)[0])
    return PixelTokens(tokens, torch.cat(features))
