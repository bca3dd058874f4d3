"""What split-sum image-based lighting needs in advance: irradiance, blurred reflections, and the FG table.

Source of the method: Karis, "Real Shading in Unreal Engine 4" (2013); Heitz, "Understanding the Masking-
Shadowing Function" (2014), equation 99, and "Sampling the GGX Distribution of Visible Normals" (2018) for the
FG table.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from trellis2.renderers.environment.cubemap import FACE_AXES, halve, solid_angles, texel_directions

LEVEL_ROUGHNESS = (0.08, 0.185, 0.29, 0.395, 0.5, 1.0)
"""Roughness of each specular level, finest first; the coarsest is 16 texels wide."""

LEVEL_CUTOFF = (0.999767, 0.993212, 0.955017, 0.805819, 0.446214, 0.015706)
"""Cosine below which a texel no longer counts: 99 % of the distribution lies within."""

COARSEST = 16
FG_SIZE = 256
FG_NODES = 40  # a dimension: within 1e-3 of a converged integral


def mip_chain(cube: torch.Tensor) -> list[torch.Tensor]:
    """The cube [6, N, N, 3] and its halvings down to 16 texels."""
    chain = [cube]
    while chain[-1].shape[1] > COARSEST:
        chain.append(halve(chain[-1]))
    return chain


def skewed_areas(size: int, device: torch.device | None = None) -> torch.Tensor:
    """The published model's texel areas [size, size]: a product of arcs, counted from the low side of the
    centre.
    """
    half = size // 2
    k = (torch.arange(size, device=device) - half).abs().float()
    arc = torch.atan((k + 1.0) / half) - torch.atan(k / half)
    return arc[:, None] * arc[None, :]


def irradiance(coarse: torch.Tensor, reference_quirks: bool = False) -> torch.Tensor:
    """Cosine-weighted mean of a cube [6, N, N, 3] around each of its own texel directions, divided by pi.

    A constant environment L gives L. With `reference_quirks` the published model's areas, which make it
    1.05 L to 1.12 L depending on direction.
    """
    size = coarse.shape[1]
    directions = texel_directions(size, coarse.device).reshape(-1, 3)
    cosine = directions @ directions.T
    if reference_quirks:
        weights = cosine.clamp(0.0, 0.999) * skewed_areas(size, coarse.device).reshape(-1).repeat(6) / math.pi
    else:
        weights = cosine.clamp(min=0.0) * solid_angles(size, coarse.device).reshape(-1).repeat(6)
        weights = weights / weights.sum(1, keepdim=True)
    return (weights @ coarse.reshape(-1, 3)).reshape(coarse.shape)


def specular_levels(cube: torch.Tensor, reference_quirks: bool = False) -> list[torch.Tensor]:
    """Six blurred cubes, [6, N, N, 3] down to [6, 16, 16, 3], one for each of LEVEL_ROUGHNESS.

    A cube of 512 gives the published model's levels; a smaller one repeats its coarsest mip as often as
    needed.
    """
    chain = mip_chain(cube)
    chain += [chain[-1]] * (len(LEVEL_ROUGHNESS) - len(chain))
    chain = [*chain[: len(LEVEL_ROUGHNESS) - 1], chain[-1]]
    return [
        _filter(mip, roughness, cutoff, reference_quirks)
        for mip, roughness, cutoff in zip(chain, LEVEL_ROUGHNESS, LEVEL_CUTOFF, strict=True)
    ]


def _filter(cube: torch.Tensor, roughness: float, cutoff: float, reference_quirks: bool) -> torch.Tensor:
    from o_voxel.kernels import launch

    from trellis2.renderers.environment import prefilter_kernels

    size, device = cube.shape[1], cube.device
    directions = texel_directions(size, device).reshape(-1, 3)
    areas = (skewed_areas if reference_quirks else solid_angles)(size, device).reshape(-1)
    result = torch.empty_like(directions)
    inputs = [
        cube.reshape(-1, 3),
        directions,
        areas,
        FACE_AXES.to(device).reshape(-1, 3),
        size,
        float(roughness**4),
        cutoff,
        result,
    ]
    launch(prefilter_kernels.filter_ggx, result.shape[0], inputs, device)
    return result.reshape(cube.shape)


@lru_cache(maxsize=4)
def fg_table(device: torch.device | str = "cpu") -> torch.Tensor:
    """Scale and bias of F0 in the split-sum integral, [256, 256, 2] (row roughness, column cosine).

    GGX with alpha = roughness^2, height-correlated Smith, at (i + 0.5) / 256; made once a process and device.
    """
    from o_voxel.kernels import launch

    from trellis2.renderers.environment import prefilter_kernels

    nodes, weights = np.polynomial.legendre.leggauss(FG_NODES)
    table = torch.empty((FG_SIZE * FG_SIZE, 2), device=device)
    inputs = [
        FG_SIZE,
        FG_NODES,
        torch.from_numpy((nodes + 1.0) / 2.0).to(table),
        torch.from_numpy(weights / 2.0).to(table),
        table,
    ]
    launch(prefilter_kernels.integrate_fg, table.shape[0], inputs, device)
    return table.reshape(FG_SIZE, FG_SIZE, 2)
