"""The image encoder's training: dense targets read from the patch tokens, alone or together with the first
flow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import MiniConfig
from .data import TableBank, as_photographed, picture_batch
from .loop import Recipe
from .losses import dense_terms, drop_condition, flow_pair, logit_normal
from .runtime import Runtime

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
        frozen: nn.Module | None = None,
    ) -> None:
        self.runtime, self.bank, self.batch, self.latents = runtime, bank, batch, latents
        self.size = config.encoder.image_size
        self.name = "encoder" if latents is None else "ss_flow" if frozen is not None else "ss_joint"
        self.encoder = frozen if frozen is not None else config.build("encoder")
        self.head = None if frozen is not None else DenseHead(config.cond)
        self.flow = None if latents is None else config.build("ss_flow")
        self.networks: dict[str, nn.Module] = {}
        if self.head is not None:
            self.networks |= {"encoder": self.encoder, "dense_head": self.head}
        if self.flow is not None:
            self.networks["ss_flow"] = self.flow
        if runtime.device.type == "cuda":
            self._compile()

    def _compile(self) -> None:
        """Fuse the blocks' element-wise work, which is most of a step at this width; all share one graph."""
        blocks = [*self.encoder.blocks, *([] if self.flow is None else self.flow.blocks)]  # type: ignore[misc]
        for block in blocks:
            block.compile(dynamic=False)

    def losses(self, progress: float) -> dict[str, Tensor]:
        rows, tables = self.bank.draw(self.batch)
        with torch.no_grad(), torch.autocast(self.runtime.device.type, enabled=False):
            picture = picture_batch(self.bank, tables, self.size)
            pixels = as_photographed(picture, self.bank.generator)
        with torch.set_grad_enabled(self.head is not None):
            tokens = self.encoder(pixels)
        terms = {} if self.head is None else dense_terms(self.head(tokens), picture)
        if self.flow is None or self.latents is None:
            return terms
        x0 = self.latents[rows].to(self.runtime.device).float()
        t = logit_normal(len(x0), 1.0, 1.0, x0.device)
        x_t, target = flow_pair(x0, torch.randn_like(x0), t.view(-1, 1, 1, 1, 1))
        velocity = self.flow(x_t, 1000 * t, drop_condition(tokens))
        return {**terms, "flow": (velocity.float() - target).square().mean()}


@torch.no_grad()
def structure_latents(bank: TableBank, encoder: nn.Module, batch: int = 64) -> Tensor:
    """Sparse-structure latents (means) of the whole bank `[N, C, g, g, g]` float16 on the bank's device."""
    from .voxelize import occupancy

    encoder = encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    parts = []
    for tables in bank.tables.split(batch):
        with torch.autocast(tables.device.type, torch.bfloat16, enabled=tables.is_cuda):
            parts.append(encoder(occupancy(tables)).half())
    return torch.cat(parts)
