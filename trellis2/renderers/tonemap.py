"""From linear HDR to what a screen shows."""

from __future__ import annotations

from functools import lru_cache

import torch


def aces(x: torch.Tensor) -> torch.Tensor:
    """Filmic curve to 0..1, still linear light. Source: Narkowicz's fit of ACES (2015)."""
    return (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).clamp(0.0, 1.0)


def encode(x: torch.Tensor) -> torch.Tensor:
    """Linear light 0..1 to display values, gamma 2.2."""
    return x.clamp(min=0.0) ** (1.0 / 2.2)


@lru_cache(maxsize=4)
def soft_backdrop(size: int, device: torch.device) -> torch.Tensor:
    """A light neutral backdrop in linear light, [3, size, size]: bright behind the object, darker to the
    corners.
    """
    axis = (torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = (x * x + (y - 0.05) ** 2).clamp(max=2.0)
    grey = 0.56 - 0.17 * distance + 0.03 * distance * distance
    return (grey[None] * torch.tensor([0.985, 0.995, 1.01], device=device)[:, None, None]).clamp(0.0, 1.0)
