"""The shading model: image-based light on points, in torch and, saying the same, in one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from trellis2.renderers.environment.cubemap import CubeMap

DIELECTRIC_F0 = 0.04


@dataclass(frozen=True)
class PreparedLight:
    """What shading reads: the unfiltered cube, irradiance, blurred reflections, and the FG table."""

    cube: CubeMap
    diffuse: CubeMap
    specular: tuple[CubeMap, ...]
    fg: torch.Tensor

    @cached_property
    def packed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Irradiance and specular cubes in one: texels [T, 3], first texel and size of each cube (int32)."""
        cubes = (self.diffuse, *self.specular)
        texels = [c.padded.reshape(-1, 3) for c in cubes]
        counts = torch.tensor([0] + [t.shape[0] for t in texels])
        device = self.fg.device
        sizes = torch.tensor([c.size for c in cubes], dtype=torch.int32, device=device)
        return torch.cat(texels).contiguous(), counts.cumsum(0)[:-1].int().to(device), sizes


def shade_torch(
    light: PreparedLight,
    to_eye: torch.Tensor,
    normal: torch.Tensor,
    kd: torch.Tensor,
    ks: torch.Tensor,
    reference_quirks: bool = False,
) -> torch.Tensor:
    """Radiance [P, 3] towards the eye; ks is occlusion, roughness, metallic. Differentiable."""
    ambient = light.diffuse.sample(normal)
    occlusion, roughness, metallic = ks[:, 0:1], ks[:, 1:2], ks[:, 2:3]
    cosine = (to_eye * normal).sum(-1, keepdim=True)
    reflected = F.normalize(2.0 * cosine * normal - to_eye, dim=-1)
    f0 = DIELECTRIC_F0 * (1.0 - metallic) + kd * metallic
    diffuse = kd * (1.0 - metallic)
    mirror = sample_levels(light.specular, reflected, roughness[:, 0])
    mirror = torch.lerp(mirror, ambient, roughness)
    fg = sample_table(light.fg, cosine[:, 0].clamp(min=1e-4), roughness[:, 0])
    single = f0 * fg[:, 0:1] + fg[:, 1:2]
    if reference_quirks:
        return (ambient * diffuse + mirror * single) * (1.0 - occlusion)
    lost = 1.0 - fg.sum(-1, keepdim=True)
    average = f0 + (1.0 - f0) / 21.0
    multiple = single * average / (1.0 - lost * average) * lost
    # what the surface reflects must not light the diffuse layer too
    under = 1.0 - (single + multiple).amax(-1, keepdim=True)
    return (mirror * single + ambient * (multiple + diffuse * under)) * (1.0 - occlusion)


def shade_kernel(
    light: PreparedLight,
    to_eye: torch.Tensor,
    normal: torch.Tensor,
    kd: torch.Tensor,
    ks: torch.Tensor,
    reference_quirks: bool = False,
) -> torch.Tensor:
    """`shade_torch` in one kernel; no gradients."""
    from o_voxel.kernels import launch

    from trellis2.renderers.shading import shade_kernels

    result = torch.empty_like(kd)
    points = [x.float() for x in (to_eye, normal, kd, ks)]
    inputs = [*points, *kernel_tables(light), reference_quirks, result]
    launch(shade_kernels.shade, result.shape[0], inputs, result.device)
    return result


def kernel_tables(light: PreparedLight) -> list[Any]:
    """What the kernels read of a light."""
    texels, offsets, sizes = light.packed
    return [texels, offsets, sizes, light.fg]


def level_of(roughness: torch.Tensor) -> torch.Tensor:
    """Fractional specular level 0..5 of a roughness."""
    fine = (roughness.clamp(0.08, 0.5) - 0.08) / 0.42 * 4.0
    coarse = (roughness.clamp(max=1.0) - 0.5) / 0.5 + 4.0
    return torch.where(roughness < 0.5, fine, coarse)


def sample_levels(
    levels: tuple[CubeMap, ...], directions: torch.Tensor, roughness: torch.Tensor
) -> torch.Tensor:
    """Trilinear lookup between the blurred cubes: directions [P, 3], roughness [P], returns [P, 3]."""
    level = level_of(roughness)
    below = level.floor().clamp(0, len(levels) - 2)
    out = torch.empty_like(directions)
    for n in range(len(levels) - 1):
        rows = torch.nonzero(below == n).squeeze(1)
        if rows.numel():
            d = directions[rows]
            weight = (level[rows] - n)[:, None]
            out[rows] = torch.lerp(levels[n].sample(d), levels[n + 1].sample(d), weight)
    return out


def sample_table(table: torch.Tensor, cosine: torch.Tensor, roughness: torch.Tensor) -> torch.Tensor:
    """Bilinear lookup of the FG table at cosine [P] (columns) and roughness [P] (rows); returns [P, 2]."""
    size = table.shape[0]
    x = (cosine * size - 0.5).clamp(0.0, size - 1.0)
    y = (roughness * size - 0.5).clamp(0.0, size - 1.0)
    column, row = x.long().clamp(max=size - 2), y.long().clamp(max=size - 2)
    wx, wy = (x - column)[:, None], (y - row)[:, None]
    entries = table.reshape(-1, 2)
    corner = row * size + column
    top = torch.lerp(entries.index_select(0, corner), entries.index_select(0, corner + 1), wx)
    corner = corner + size
    bottom = torch.lerp(entries.index_select(0, corner), entries.index_select(0, corner + 1), wx)
    return torch.lerp(top, bottom, wy)
