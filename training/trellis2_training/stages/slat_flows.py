"""Training of flows over structured latents, from latents held in memory, and the shape's flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trellis2.sparse import SparseTensor

from ..config import MiniConfig
from ..loop import Recipe
from ..losses import drop_condition, flow_pair, shifted_times
from ..runtime import Runtime
from .latents import LatentSet, standardised

_SHELVES = 32
_STRONGEST = 0.4  # of the texture's times: whether its first step finds the colours is what counts most


class StructuredLatentFlow:
    """Batches hold objects of similar size, cut to the smallest by leaving out a few random voxels.

    One length a batch means one attention call a layer; the cut is a few per cent and acts as augmentation.
    Objects are sorted into shelves by size, with one length and one number of objects each: attention
    kernels are planned anew for every shape, which takes longer than a step.
    """

    name: str
    recipe = Recipe(lr=6e-4, weight_decay=0.01, betas=(0.9, 0.95), warmup=200)

    def __init__(
        self,
        config: MiniConfig,
        latents: LatentSet,
        statistics: dict[str, Tensor],
        runtime: Runtime,
        texture: bool,
        budget: int = 48_000,
        seed: int = 0,
    ) -> None:
        self.runtime, self.latents, self.texture, self.budget = runtime, latents, texture, budget
        self.flow: Any = config.build(self.name)
        self.networks: dict[str, nn.Module] = {self.name: self.flow}
        self.shape = standardised(latents.shape, "shape", statistics).half()
        self.colour = standardised(latents.texture, "texture", statistics).half() if texture else None
        self.sizes = latents.offsets.diff()
        self.shelves = self.sizes.argsort().tensor_split(min(_SHELVES, len(self.sizes)))
        self.generator = torch.Generator().manual_seed(seed * 7919 + runtime.rank)

    def _objects(self) -> tuple[Tensor, int]:
        """Objects of one batch and their common length."""
        shelf = self.shelves[int(torch.randint(len(self.shelves), (), generator=self.generator))]
        length = int(self.sizes[shelf[0]])
        batch = min(max(self.budget // length, 1), 96)
        return shelf[torch.randint(len(shelf), (batch,), generator=self.generator)], length

    def losses(self, progress: float) -> dict[str, Tensor]:
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
        shape = self.shape[rows].float()
        x0 = shape if self.colour is None else self.colour[rows].float()
        t = shifted_times(batch, device, strongest=_STRONGEST if self.texture else 0.0)
        x_t, target = flow_pair(x0, torch.randn_like(x0), t.repeat_interleave(length)[:, None])
        noisy = SparseTensor(x_t, coords, batch)
        concat = noisy.replace(shape) if self.texture else None
        condition, terms = self.condition(chosen.to(device), coords[:, 1:].unflatten(0, (batch, length)))
        velocity = self.flow(noisy, 1000 * t, condition, concat_cond=concat)
        return {"flow": (velocity.feats.float() - target).square().mean(), **terms}

    def condition(self, chosen: Tensor, coords: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """What the flow sees of pictures of objects `chosen [B]`, whose voxels are `coords [B, L, 3]`, and
        terms of the loss beside its own.
        """
        raise NotImplementedError


class ShapeFlow(StructuredLatentFlow):
    """The shape's flow, which sees image tokens `[N, views, L, C]` of every object."""

    name = "shape_flow"

    def __init__(
        self,
        config: MiniConfig,
        latents: LatentSet,
        tokens: Tensor,
        statistics: dict[str, Tensor],
        runtime: Runtime,
        budget: int = 48_000,
        seed: int = 0,
    ) -> None:
        super().__init__(config, latents, statistics, runtime, False, budget, seed)
        self.tokens = tokens

    def condition(self, chosen: Tensor, coords: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        view = torch.randint(self.tokens.shape[1], (len(chosen),), generator=self.generator)
        return drop_condition(self.tokens[chosen, view.to(chosen.device)].float()), {}
