"""Conditions of pixel-aligned flows: a few global tokens, and for each token what its place shows in the
pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..conditioning.camera import Camera
from ..conditioning.naf import NAF
from ..conditioning.pixel_features import PixelView, make_view, split_tokens, token_features
from ..errors import InvalidArgumentError
from ..nn.rope import grid_coords
from ..nn.tokens import PixelTokens
from .conditioner import Condition
from .latents import LATENT_STRIDE


@dataclass(frozen=True)
class PixelStage:
    """What a stage reads: the side of the picture, of the upsampled map (None: not read), and of the one that
    a later stage reads in the same picture on the same tokens.
    """

    picture: int
    upsampled: int | None = None
    ahead: int | None = None


PIXEL_STAGES: Mapping[str, PixelStage] = {
    "sparse_structure": PixelStage(512),
    "shape": PixelStage(512, 512),
    "shape_fine": PixelStage(1024, 512, ahead=1024),
    "texture": PixelStage(1024, 1024),
}


@dataclass(frozen=True)
class EncodedPicture:
    """A picture `[3, S, S]` in 0..1 with what the image model makes of it: tokens `[1 + 4 + n*n, C]`."""

    picture: torch.Tensor
    tokens: torch.Tensor


@dataclass
class PixelConditioner:
    """Pictures by size, each list in the order of `cameras`; features come in `dtype`, on the pictures'
    device.

    The guide encoder of the upsampler, the costly part, runs once for each picture and size: the texture's
    features are read along with the fine shape's, whose tokens are the same, and wait in host memory.
    """

    pictures: Mapping[int, Sequence[EncodedPicture]]
    cameras: Sequence[Camera]
    structure_grid: int
    upsampler: NAF | None = None
    dtype: torch.dtype = torch.float32
    stages: Mapping[str, PixelStage] = field(default_factory=lambda: PIXEL_STAGES)
    _waiting: tuple[torch.Tensor, int, torch.Tensor] | None = None  # tokens' coords, side, features

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """As `Conditioner` says; features of a dense latent are `[1, R^3, P]`, of a sparse one `[T, P]`."""
        if stage not in self.stages:
            raise InvalidArgumentError(f"pixel-aligned flows have no stage {stage!r}")
        reads = self.stages[stage]
        encoded = self.pictures[reads.picture]
        seen = torch.stack([split_tokens(e.tokens)[0] for e in encoded]).mean(0)[None]
        if coords is None:
            grid = self.structure_grid
            features = self._features(reads, grid_coords(grid, encoded[0].picture.device), grid)[None]
        else:
            features = self._features(reads, coords[:, 1:], resolution // LATENT_STRIDE)
        tokens = PixelTokens(seen, features)
        return Condition(tokens, tokens.null())

    def _features(self, reads: PixelStage, places: torch.Tensor, grid: int) -> torch.Tensor:
        if reads.upsampled is None:
            return self._read(reads.picture, places, grid, [])
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[1] == reads.upsampled and torch.equal(waiting[0], places):
            low = self._read(reads.picture, places, grid, [])
            return torch.cat([low, waiting[2].to(low.device)], dim=1)
        sides = [reads.upsampled] if reads.ahead is None else [reads.upsampled, reads.ahead]
        features = self._read(reads.picture, places, grid, sides)
        if reads.ahead is None:
            return features
        width = features.shape[1] // 3
        self._waiting = places, reads.ahead, features[:, 2 * width :].to("cpu", copy=True)
        return features[:, : 2 * width].contiguous()

    def _read(self, size: int, places: torch.Tensor, grid: int, sides: list[int]) -> torch.Tensor:
        views = self._views(size, sides)
        return token_features(views, len(self.cameras), places, grid, sides, dtype=self.dtype)

    def _views(self, size: int, sides: list[int]) -> Iterator[PixelView]:
        """One at a time: a guide at 1024 takes a gigabyte."""
        for encoded, camera in zip(self.pictures[size], self.cameras, strict=True):
            patches = split_tokens(encoded.tokens)[1]
            yield make_view(camera, patches, encoded.picture, sides, self.upsampler)
