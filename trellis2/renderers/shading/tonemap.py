"""From linear HDR to what a screen shows."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from trellis2.renderers.projection import resize


def aces(x: torch.Tensor) -> torch.Tensor:
    """Filmic curve to 0..1, still linear light. Source: Narkowicz's fit of ACES (2015)."""
    return (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).clamp(0.0, 1.0)


def encode(x: torch.Tensor) -> torch.Tensor:
    """Linear light 0..1 to display values, gamma 2.2."""
    return x.clamp(min=0.0) ** (1.0 / 2.2)


def develop(
    colour: torch.Tensor,
    openness: torch.Tensor,
    coverage: torch.Tensor,
    ssaa: int,
    backdrop: torch.Tensor | None,
) -> torch.Tensor:
    """Display values [3, R, R] of a square picture with `ssaa` samples a side of a pixel; as `develop_torch`.

    colour [S*S, 3] linear, premultiplied by coverage [S*S, 1]; openness [S*S, 1] darkens it. backdrop
    [R*R, 3] or [1, 3], linear light, shows where nothing covers; None for black.
    """
    from o_voxel.kernels import launch

    from trellis2.renderers.shading import tonemap_kernels

    size = math.isqrt(colour.shape[0])
    side = size // ssaa
    result = torch.empty((side * side, 3), device=colour.device)
    nothing = torch.empty((0, 3), device=colour.device)
    inputs = [
        colour,
        openness.reshape(-1),
        coverage.reshape(-1),
        nothing if backdrop is None else backdrop,
        size,
        ssaa,
        result,
    ]
    launch(tonemap_kernels.develop, side * side, inputs, colour.device)
    return result.reshape(side, side, 3).permute(2, 0, 1)


def develop_torch(
    colour: torch.Tensor,
    openness: torch.Tensor,
    coverage: torch.Tensor,
    ssaa: int,
    backdrop: torch.Tensor | None,
) -> torch.Tensor:
    """What `develop` computes, step by step."""
    size = math.isqrt(colour.shape[0])
    side = size // ssaa

    def reduced(values: torch.Tensor) -> torch.Tensor:
        return resize(values.reshape(size, size, -1).permute(2, 0, 1), side)

    light = reduced(colour * openness).clamp(min=0.0)
    if backdrop is None:
        return encode(aces(light))
    # light leaves the tone curve before it mixes with the backdrop, or edges would glow
    share = reduced(coverage)
    behind = backdrop.expand(side * side, 3).T.reshape(3, side, side)
    return encode(aces(light / share.clamp(min=1e-4)) * share + behind * (1.0 - share))


@lru_cache(maxsize=4)
def soft_backdrop(size: int, device: torch.device) -> torch.Tensor:
    """A light neutral backdrop in linear light, [size^2, 3]: bright behind the object, darker to the
    corners.
    """
    axis = (torch.arange(size, device=device) + 0.5) / size * 2.0 - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = (x * x + (y - 0.05) ** 2).clamp(max=2.0)
    grey = 0.56 - 0.17 * distance + 0.03 * distance * distance
    tint = torch.tensor([0.985, 0.995, 1.01], device=device)
    return (grey.reshape(-1, 1) * tint).clamp(0.0, 1.0)
