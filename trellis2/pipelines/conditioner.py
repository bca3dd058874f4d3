"""What the flows see of a picture, asked for stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..errors import InvalidArgumentError
from ..nn.tokens import PixelTokens
from ..samplers.guidance import SeveralViews

PICTURE_SIZES = (512, 1024)


@dataclass(frozen=True)
class Condition:
    """What a flow sees of the picture, and what it sees in its place for guidance.

    Image tokens `[B, L, C]` each, or whatever else the network's `prepare_cond` takes.
    """

    cond: Any
    neg_cond: Any

    def repeated(self, samples: int) -> Condition:
        """Image tokens of batch 1 repeated to `samples`; those that already have this batch stay."""
        return Condition(*(_repeated(tokens, samples) for tokens in (self.cond, self.neg_cond)))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(self.cond.to(device), self.neg_cond.to(device))


def _repeated(tokens: Any, samples: int) -> Any:
    if isinstance(tokens, (PixelTokens, SeveralViews)):
        return tokens.repeated(samples)
    if tokens.shape[0] not in (1, samples):
        raise InvalidArgumentError(f"the condition holds {tokens.shape[0]} items for {samples} samples")
    return tokens if tokens.shape[0] == samples else tokens.expand(samples, -1, -1)


class Conditioner(Protocol):
    """Gives each stage its condition, once the stage's voxels are known."""

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """For the flow of `stage` ("sparse_structure", "shape", "shape_fine", "texture") towards a final grid
        of `resolution`³ voxels; `coords [N, 4]` are its tokens (None: every cell of the dense latent).
        """


@dataclass(frozen=True)
class ImageConditioner:
    """Image tokens by picture size: stages towards 512 see the picture at 512, finer ones at 1024."""

    by_size: Mapping[int, Condition]

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        size = PICTURE_SIZES[0] if resolution <= PICTURE_SIZES[0] else PICTURE_SIZES[1]
        if size not in self.by_size:
            raise InvalidArgumentError(
                f"stage {stage} at {resolution} needs image tokens at {size}; "
                f"there are some at {', '.join(map(str, self.by_size)) or 'no size'}"
            )
        return self.by_size[size]


@dataclass(frozen=True)
class SeveralConditioners:
    """One a picture, for weights that were trained on one picture: see `SeveralViews`."""

    views: tuple[Conditioner, ...]
    mode: str

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """As `Conditioner` says."""
        each = [view.condition(stage, coords, resolution) for view in self.views]
        return Condition(SeveralViews(tuple(c.cond for c in each), self.mode), each[0].neg_cond)
