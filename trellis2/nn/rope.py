"""Positions: three-dimensional rotary phases, and the absolute table of older configs."""

from __future__ import annotations

import torch


def rope_phases(
    coords: torch.Tensor, head_dim: int, freq: tuple[float, float] = (1.0, 10000.0)
) -> torch.Tensor:
    """Unit complex numbers `[T, head_dim // 2]` for integer voxel coordinates `[T, 3]`.

    Frequencies `f0 / f1^(j/F)` with `F = head_dim // 6` an axis; x's angles first, then y's, z's, then zero
    angles (no rotation) up to half the head.
    """
    per_axis = head_dim // 2 // 3
    exponent = torch.arange(per_axis, dtype=torch.float32, device=coords.device) / per_axis
    frequencies = freq[0] / freq[1] ** exponent
    angles = (coords.float()[:, :, None] * frequencies).flatten(1)
    angles = torch.nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[1]))
    return torch.polar(torch.ones_like(angles), angles)


def apply_rope(x: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """Rotate channel pairs (2i, 2i+1) of every head: `x [T, H, D]`, `phases [T, D/2]`; float32 inside, cast
    back.
    """
    if torch.compiler.is_compiling():  # no code is generated for complex numbers
        even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = phases.real[:, None], phases.imag[:, None]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * phases[:, None]).flatten(-2).to(x.dtype)


def grid_coords(resolution: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Coordinates `[R^3, 3]` of a dense grid's cells, z fastest."""
    axis = torch.arange(resolution, device=device)
    return torch.cartesian_prod(axis, axis, axis)


def sincos_positions(coords: torch.Tensor, channels: int) -> torch.Tensor:
    """Absolute embedding `[T, channels]`: per axis `[sin, cos]` of frequencies `1 / 10000^(j/F)`, F =
    channels // 6.
    """
    per_axis = channels // 3 // 2
    exponent = torch.arange(per_axis, dtype=torch.float32, device=coords.device) / per_axis
    angles = coords.float()[:, :, None] * (1.0 / 10000**exponent)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return torch.nn.functional.pad(table, (0, channels - table.shape[1]))
