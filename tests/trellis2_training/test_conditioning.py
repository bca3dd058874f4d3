"""What the sparse-structure flow is trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from trellis2_training.config import MiniConfig
from trellis2_training.data.batches import TableBank
from trellis2_training.runtime import Runtime
from trellis2_training.stages.structure import AlignedStructureFlow


class Counting(nn.Module):
    """An encoder whose tokens say in which call they were made."""

    calls = 0

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.stem = config.build("encoder").stem
        self.shape = (1 + config.encoder.patches**2, config.cond)

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((len(pixels), *self.shape), float(self.calls))


def test_new_pictures_take_the_place_of_the_oldest(
    config: MiniConfig, bank: TableBank, runtime: Runtime
) -> None:
    latents = torch.randn(len(bank), config.ss_latent, config.ss_grid, config.ss_grid, config.ss_grid)
    encoder = Counting(config)
    stage = AlignedStructureFlow(config, bank, runtime, latents, encoder, batch=2, most=6, every=2, first=1)
    pools = []
    for _ in range(9):
        assert stage.losses(0.0)["flow"].isfinite()
        assert stage.seen is not None
        pools.append(sorted({int(x) for x in stage.seen.tokens[: len(stage.rows), 0, 0]}))
    assert pools[:3] == [[1], [1], [1, 2]], "every other step sees new pictures"
    assert pools[-1] == [3, 4, 5], "no more than six, the newest"
    assert len(stage.rows) == len(stage.seen.tokens) == 6
