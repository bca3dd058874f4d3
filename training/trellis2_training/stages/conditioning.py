"""The image encoder's training: dense targets read from the patch tokens, alone or together with the first
flow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
            flow = self.networks["ss_flow"]
            self._steps = replayed([self.encoder, flow], [(pixels,), (x0, x0[:, 0, 0, 0, 0], tokens)])
        encoder, flow = self._steps
        tokens = encoder(pixels)
        terms = dense_terms(self.head(tokens), picture)
        return {**terms, "flow": structure_loss(flow, x0, tokens)}


class StructureFlow:
    """The sparse-structure flow alone, on tokens of a frozen encoder.

    A picture and its tokens cost more than a step on them: tokens are kept and drawn from again and again,
    while a new batch of pictures joins them, or takes the place of the oldest, every few steps.
    """

    name = "ss_flow"
    recipe = Conditioning.recipe

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        latents: Tensor,
        encoder: nn.Module,
        batch: int = 128,
        most: int = 24_576,
        every: int = 4,
        first: int = 16,
    ) -> None:
        self.runtime, self.bank, self.latents, self.encoder = runtime, bank, latents, encoder
        self.batch, self.most, self.every = batch, max(most // batch, 1) * batch, every
        self.first = first  # batches of pictures to begin with
        self.size = config.encoder.image_size
        self.flow = config.build("ss_flow")
        self.networks: dict[str, nn.Module] = {"ss_flow": self.flow}
        self._step: nn.Module | None = None  # the flow as called, from the first batch on
        self.rows = torch.empty(0, dtype=torch.int64)
        self.tokens = torch.empty(0)
        self.oldest = self.steps = 0
        if runtime.device.type == "cuda":
            compile_blocks(encoder, self.flow)

    def losses(self, progress: float) -> dict[str, Tensor]:
        if self.steps % self.every == 0:
            self._see()
        while len(self.rows) < min(self.first * self.batch, self.most):
            self._see()
        self.steps += 1
        chosen = torch.randint(len(self.rows), (self.batch,), generator=self.bank.generator)
        chosen = chosen.to(self.rows.device)
        x0 = self.latents[self.rows[chosen]].to(self.runtime.device).float()
        tokens = self.tokens[chosen].float()
        if self._step is None:
            (self._step,) = replayed([self.flow], [(x0, x0[:, 0, 0, 0, 0], tokens)])
        return {"flow": structure_loss(self._step, x0, tokens)}

    @torch.no_grad()
    def _see(self) -> None:
        """One batch of new pictures."""
        rows, tables = self.bank.draw(self.batch)
        with torch.autocast(self.runtime.device.type, enabled=False):
            pixels = as_photographed(picture_batch(self.bank, tables, self.size), self.bank.generator)
        tokens = self.encoder(pixels).half()
        if not len(self.rows):
            self.rows, self.tokens = rows, tokens
        elif len(self.rows) < self.most:
            self.rows, self.tokens = torch.cat([self.rows, rows]), torch.cat([self.tokens, tokens])
        else:
            places = slice(self.oldest, self.oldest + self.batch)
            self.rows[places], self.tokens[places] = rows, tokens
            self.oldest = (self.oldest + self.batch) % self.most


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


@torch.no_grad()
def structure_latents(bank: TableBank, encoder: nn.Module, batch: int = 64) -> Tensor:
    """Sparse-structure latents (means) of the whole bank `[N, C, g, g, g]` float16 on the bank's device."""
    from ..data.voxelize import occupancy

    encoder = encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    parts = []
    for tables in bank.tables.split(batch):
        with torch.autocast(tables.device.type, torch.bfloat16, enabled=tables.is_cuda):
            parts.append(encoder(occupancy(tables)).half())
    return torch.cat(parts)
