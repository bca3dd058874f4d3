"""The matting network's training: mattes of rendered objects on procedural backgrounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MiniConfig
from ..data.backgrounds import CutoutPool
from ..data.batches import TableBank
from ..loop import Recipe
from ..losses import dice
from ..runtime import Runtime

_EDGE = 4.0  # pixels near the matte's edge count that much more


class Matting:
    """Pixel-wise cross entropy, heavier at edges, beside what decides: overlap, and the error of alpha."""

    name = "matting"
    recipe = Recipe(lr=2e-3, weight_decay=0.01, betas=(0.9, 0.99), warmup=100)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        batch: int = 64,
        most: int = 12_288,
        every: int = 4,
        first: int = 8,
    ) -> None:
        self.runtime, self.batch, self.every, self.first = runtime, batch, every, first
        self.net: nn.Module = config.build("matting")
        self.networks: dict[str, nn.Module] = {"matting": self.net}
        self.pool = CutoutPool(bank, config.matting.image_size, most, max(batch // 2, 1))
        self.steps = 0

    def losses(self, progress: float) -> dict[str, Tensor]:
        with torch.autocast(self.runtime.device.type, enabled=False):
            if self.steps % self.every == 0:
                self.pool.grow()
            while self.pool.filled < min(self.first * self.pool.at_once, len(self.pool.kept)):
                self.pool.grow()
            pictures, truth = self.pool.batch(self.batch)
        self.steps += 1
        return matting_terms(self.net(pictures).float(), truth)


def matting_terms(logits: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Terms for logits and true mattes `[B, 1, S, S]`; `_iou` is that of mattes above a half."""
    spread = F.max_pool2d(truth, 9, 1, 4) + F.max_pool2d(-truth, 9, 1, 4)  # 1 near an edge, 0 elsewhere
    weight = 1 + (_EDGE - 1) * spread
    entropy = F.binary_cross_entropy_with_logits(logits, truth, weight) / weight.mean()
    with torch.no_grad():
        found, true = logits > 0, truth > 0.5
        shared, either = (f(found, true).sum((1, 2, 3)) for f in (torch.logical_and, torch.logical_or))
    return {
        "entropy": entropy,
        "alpha": (logits.sigmoid() - truth).abs().mean(),
        "dice": 0.5 * dice(logits, truth),
        "_iou": (shared / either.clamp(min=1)).mean(),
    }
