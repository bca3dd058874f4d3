"""The image encoder's training: dense targets read from the patch tokens, alone or together with the first
flow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trellis2.nn.tokens import PixelTokens

from ..config import MiniConfig
from ..cuda_graphs import replayed
from ..data.batches import TableBank, as_photographed, picture_batch
from ..loop import Recipe
from ..losses import dense_terms, drop_condition, flow_pair, logit_normal
from ..runtime import Runtime

_CELLS = 4  # a patch predicts 4 x 4 cells
_CHANNELS = 12


class DenseHead(nn.Module):
    """Patch tokens `[B, 1 + P^2, C]` to maps `[B, 12, 4P, 4P]`; only used in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, _CHANNELS * _CELLS**2)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        side = round((tokens.shape[1] - 1) ** 0.5)
        maps = self.out(tokens[:, 1:]).transpose(1, 2).unflatten(2, (side, side))
        return nn.functional.pixel_shuffle(maps, _CELLS)


class OfTokens(nn.Module):
    """A pixel-aligned flow that reads no map yet."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        velocity: Tensor = self.flow(x_t, t, PixelTokens(tokens, None))
        return velocity


class Conditioning:
    """Image encoder and sparse-structure flow trained as one, so that tokens carry what the flow needs.

    With `latents` None the flow is left out and the dense terms train the encoder alone.
    """

    recipe = Recipe(lr=5e-4, weight_decay=0.01, betas=(0.9, 0.95), warmup=200)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        latents: Tensor | None,
        batch: int = 96,
    ) -> None:
        self.runtime, self.bank, self.batch, self.latents = runtime, bank, batch, latents
        self.size = config.encoder.image_size
        self.name = "encoder" if latents is None else "ss_joint"
        self.patches, self.width = config.encoder.patches**2, config.cond
        self.encoder, self.head = config.build("encoder"), DenseHead(config.cond)
        self.networks: dict[str, nn.Module] = {"encoder": self.encoder, "dense_head": self.head}
        if latents is not None:
            self.networks["ss_flow"] = config.build("ss_flow")
        self._steps: list[nn.Module] = []  # encoder and flow as called, from the first batch on
        if runtime.device.type == "cuda":
            compile_blocks(self.networks["encoder"], self.networks.get("ss_flow"))

    def losses(self, progress: float) -> dict[str, Tensor]:
        rows, tables = self.bank.draw(self.batch)
        with torch.no_grad(), torch.autocast(self.runtime.device.type, enabled=False):
            picture = picture_batch(self.bank, tables, self.size)
            pixels = as_photographed(picture, self.bank.generator)
        if self.latents is None:
            self._steps = self._steps or replayed([self.encoder], [(pixels,)])
            return dense_terms(self.head(self._steps[0](pixels)), picture)
        x0 = self.latents[rows].to(self.runtime.device).float()
        if not self._steps:
            tokens = pixels.new_zeros(len(x0), 1 + self.patches, self.width).requires_grad_()
            flow = OfTokens(self.networks["ss_flow"])
            self._steps = replayed([self.encoder, flow], [(pixels,), (x0, x0[:, 0, 0, 0, 0], tokens)])
        encoder, called = self._steps
        tokens = encoder(pixels)
        terms = dense_terms(self.head(tokens), picture)
        return {**terms, "flow": structure_loss(called, x0, tokens)}


def compile_blocks(*networks: nn.Module | None) -> None:
    """Fuse the blocks' element-wise work, most of a step at these widths. A network's share a graph."""
    for network in networks:
        for block in [] if network is None else network.blocks:  # type: ignore[union-attr]
            block.compile(dynamic=False)


def structure_loss(flow: nn.Module, x0: Tensor, tokens: Tensor) -> Tensor:
    """Squared error of the velocity at random times, for latents `[B, C, g, g, g]` and tokens `[B, L, C]`."""
    t = logit_normal(len(x0), 1.0, 1.0, x0.device)
    x_t, target = flow_pair(x0, torch.randn_like(x0), t.view(-1, 1, 1, 1, 1))
    velocity: Tensor = flow(x_t, 1000 * t, drop_condition(tokens))
    return (velocity.float() - target).square().mean()
