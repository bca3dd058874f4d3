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
    whatever light is left.

    To draw a picture takes as long as a step: a new batch comes every `every` steps, in place of the oldest
    of `most`.
    """

    name = "base_color"
    recipe = Recipe(lr=1.5e-3, weight_decay=0.01, betas=(0.9, 0.99), warmup=100)

    def __init__(
        self,
        config: MiniConfig,
        bank: TableBank,
        runtime: Runtime,
        encoder: nn.Module,
        batch: int = 64,
        every: int = 3,
        most: int = 32,
    ) -> None:
        self.runtime, self.bank, self.encoder, self.batch = runtime, bank, encoder, batch
        self.every, self.most, self.steps = every, most, 0
        self.batches: list[tuple[Tensor, ...]] = []
        self.size = config.encoder.image_size
        self.net: nn.Module = config.build("base_color").to(memory_format=torch.channels_last)
        self.networks: dict[str, nn.Module] = {"base_color": self.net}

    def losses(self, progress: float) -> dict[str, Tensor]:
        if self.steps % self.every == 0:
            self.batches = [*self.batches[-self.most + 1 :], self._seen()]
        self.steps += 1
        generator, device = self.bank.generator, self.runtime.device
        # A few rows of each of several batches would need as many launches: halves of two are varied enough.
        chosen = torch.randint(len(self.batches), (2,), generator=generator).tolist()
        halves = [self.batches[i] for i in chosen]
        rows = torch.randperm(self.batch, generator=generator).to(device).tensor_split(2)
        parts = zip(*([v[r] for v in half] for half, r in zip(halves, rows, strict=True)), strict=True)
        pixels, tokens, truth, mask = (torch.cat(part) for part in parts)
        return base_color_terms(self.net(pixels / 255, tokens.float()), truth / 255, mask.float())

    @torch.no_grad()
    def _seen(self) -> tuple[Tensor, ...]:
        """Pictures as bytes, their tokens, true colours as bytes, and masks."""
        with torch.autocast(self.runtime.device.type, enabled=False):
            tables = world.patterned(self.bank.draw(self.batch)[1], self.bank.generator, _PATTERNED)
            picture = view_batch(self.bank, tables, self.size)[1]
            pixels = (as_photographed(picture, self.bank.generator) * 255).round()
        truth = (picture.attributes[:, :3].clamp(0, 1) * 255).round()
        return pixels.byte(), self.encoder(pixels / 255).half(), truth.byte(), picture.mask.half()


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
