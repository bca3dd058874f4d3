"""The base colour network's training: pictures of the world in any light and look, and their true colours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import world
from ..config import MiniConfig
from ..data.batches import TableBank, as_photographed, view_batch
from ..evaluation.exported import LEAST_SPREAD
from ..loop import Recipe
from ..runtime import Runtime

_PATTERNED = 0.6  # of the objects
_STEPS = (1, 4, 16)  # pixels between which differences of colour are compared


class BaseColor:
    """Errors of colour, and of its differences between near and far pixels: sharp edges, and patterns over
    whatever light is left. Every batch is new.
    """

    name = "base_color"
    recipe = Recipe(lr=1.5e-3, weight_decay=0.01, betas=(0.9, 0.99), warmup=100)

    def __init__(
        self, config: MiniConfig, bank: TableBank, runtime: Runtime, encoder: nn.Module, batch: int = 64
    ) -> None:
        self.runtime, self.bank, self.encoder, self.batch = runtime, bank, encoder, batch
        self.size = config.encoder.image_size
        self.net: nn.Module = config.build("base_color").to(memory_format=torch.channels_last)
        self.networks: dict[str, nn.Module] = {"base_color": self.net}

    def losses(self, progress: float) -> dict[str, Tensor]:
        with torch.no_grad():
            with torch.autocast(self.runtime.device.type, enabled=False):
                tables = world.patterned(self.bank.draw(self.batch)[1], self.bank.generator, _PATTERNED)
                picture = view_batch(self.bank, tables, self.size)[1]
                pixels = as_photographed(picture, self.bank.generator)
            tokens = self.encoder(pixels)
        return base_color_terms(self.net(pixels, tokens), picture.attributes[:, :3].clamp(0, 1), picture.mask)


def base_color_terms(colours: Tensor, truth: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Terms for colours `[B, 3, S, S]` where the mask `[B, 1, S, S]` is."""
    gap = colours - truth
    error = (gap.abs() * mask).sum() / (3 * mask.sum()).clamp(min=1)
    contrast = []
    for step in _STEPS:
        for axis in (2, 3):
            size = gap.shape[axis] - step
            both = mask.narrow(axis, 0, size) * mask.narrow(axis, step, size)
            jump = (gap.narrow(axis, step, size) - gap.narrow(axis, 0, size)).abs()
            contrast.append((jump * both).sum() / (3 * both.sum()).clamp(min=1))
    return {
        "base_color": error,
        "contrast": torch.stack(contrast).mean(),
        "_correlation": correlation(colours.detach(), truth, mask),
    }


def correlation(colours: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean Pearson's correlation of pictures of several colours, each channel less its mean in the mask."""
    count = mask.sum((2, 3), keepdim=True).clamp(min=1)
    a, b = ((x - (x * mask).sum((2, 3), keepdim=True) / count) * mask for x in (colours, truth))
    norms = [x.square().sum((1, 2, 3)).sqrt() for x in (a, b)]
    several = norms[1] >= LEAST_SPREAD * (3 * count[:, 0, 0, 0]).sqrt()
    found = (a * b).sum((1, 2, 3)) / (norms[0] * norms[1]).clamp(min=1e-6)
    return (found * several).sum() / several.sum().clamp(min=1)
