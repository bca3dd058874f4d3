"""Textures and PBR materials of a `MeshWithPbrMaterial`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import torch

from ..errors import InvalidArgumentError


class FilterMode(IntEnum):
    """How a texture is read between texel centres."""

    CLOSEST = 0
    LINEAR = 1


class WrapMode(IntEnum):
    """What lies outside 0..1. (`o_voxel.convert` numbers these differently.)"""

    CLAMP_TO_EDGE = 0
    REPEAT = 1
    MIRRORED_REPEAT = 2


class AlphaMode(IntEnum):
    """Alpha is ignored, compared with the cutoff, or blended."""

    OPAQUE = 0
    MASK = 1
    BLEND = 2


@dataclass(frozen=True)
class Texture:
    """An image `[H, W, C]` in 0..1; uv (0, 0) is its first row and column."""

    image: torch.Tensor
    filter_mode: FilterMode = FilterMode.LINEAR
    wrap_mode: WrapMode = WrapMode.REPEAT

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or 0 in self.image.shape:
            raise InvalidArgumentError(f"a texture must be [H, W, C], got {list(self.image.shape)}")

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Texture:
        return replace(self, image=self.image.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class PbrMaterial:
    """Metallic-roughness material: each value is its texture (where there is one) times its factor."""

    base_color_texture: Texture | None = None
    base_color_factor: torch.Tensor | list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    metallic_texture: Texture | None = None
    metallic_factor: float = 1.0
    roughness_texture: Texture | None = None
    roughness_factor: float = 1.0
    alpha_texture: Texture | None = None
    alpha_factor: float = 1.0
    alpha_mode: AlphaMode = AlphaMode.OPAQUE
    alpha_cutoff: float = 0.5

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PbrMaterial:
        """The same material with its textures (and a tensor factor) on `device`."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (Texture, torch.Tensor)):
                moved[f.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)
