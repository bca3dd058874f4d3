"""Conditions of flows that are pixel-aligned in the object's own upright frame, as the bundled ones are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..conditioning.pixel_map import PixelSource, voxel_features
from ..conditioning.upright import UprightCamera
from ..nn.tokens import PixelTokens
from .conditioner import Condition, ImageConditioner
from .latents import LATENT_STRIDE


@dataclass(frozen=True)
class UprightConditioner:
    """Image tokens for every stage; for those in `aligned` also what each voxel sees of the picture.

    `maps [1, C, H, W]` are the picture's feature maps, `camera` the one that took it.
    """

    tokens: ImageConditioner
    maps: torch.Tensor
    camera: UprightCamera
    aligned: frozenset[str]

    @classmethod
    def of(
        cls,
        tokens: ImageConditioner,
        seen: torch.Tensor,
        picture: torch.Tensor,
        source: PixelSource,
        aligned: frozenset[str],
    ) -> UprightConditioner:
        """From a picture `[1, 3, S, S]` in 0..1 and its image tokens `seen [1, L, C]`."""
        return cls(tokens, source.map(picture, seen), source.camera(seen), aligned)

    def condition(self, stage: str, coords: torch.Tensor | None, resolution: int) -> Condition:
        """As `Conditioner` says; the voxels of an item are the object that its crop was made around."""
        plain = self.tokens.condition(stage, coords, resolution)
        if stage not in self.aligned or coords is None:
            return plain
        grid, items = resolution // LATENT_STRIDE, coords[:, 0]
        features: torch.Tensor | None = None
        for item in items.unique().tolist():
            rows = items == item
            made = voxel_features(self.maps, coords[rows][None, :, 1:], grid, self.camera)[0]
            if features is None:
                features = made.new_empty(len(coords), made.shape[1])
            features[rows] = made
        tokens = PixelTokens(plain.cond, features)
        return Condition(tokens, tokens.null())
