"""Screen-space ambient occlusion."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

BACKGROUND_DEPTH = 1e10
PATTERNS = 16
"""Rows of the sample table, one for each pixel of a 4 x 4 tile."""


@lru_cache(maxsize=8)
def sample_table(samples: int, radius: float, seed: int) -> torch.Tensor:
    """Offsets [16, samples, 3]: random directions, lengths radius * u^2 so that most lie close."""
    generator = torch.Generator().manual_seed(seed)
    direction = F.normalize(torch.randn((PATTERNS, samples, 3), generator=generator), dim=-1)
    # lengths are stratified within a row: less noise than independent ones
    u = (torch.arange(samples) + torch.rand((PATTERNS, samples), generator=generator)) / samples
    return direction * (radius * u * u)[..., None]


def openness(
    pixels: torch.Tensor,
    normals: torch.Tensor,
    rotation: torch.Tensor,
    depth: torch.Tensor,
    intrinsics: torch.Tensor,
    radius: float = 0.1,
    bias: float = 1e-6,
    slope: float = 1.0,
    samples: int = 64,
    intensity: float = 1.0,
    seed: int = 0,
    smooth: bool = True,
) -> torch.Tensor:
    """How much of the light around each pixel's point comes through, [H*W]: 1 - occlusion, 0 where empty.

    pixels: [P] int64 flat indices of the object. normals: [H*W, 3] unit, towards the camera, which `rotation`
    [3, 3] takes to camera space. depth: [H, W] camera z, 1e10 where empty. A sample is hidden when the
    surface seen there lies at least a margin and less than `radius` in front of it; the margin is `bias` plus
    `slope` times the depth that one pixel spans on the surface (0 gives the published rule, which speckles on
    fine meshes). `smooth` takes the mean over the 4 x 4 pixels that share no samples. The same seed gives the
    same picture.
    """
    from o_voxel.kernels import launch, warp_module

    wp = warp_module()
    from trellis2.renderers.shading import occlusion_kernels

    height, width = depth.shape
    device, count = depth.device, pixels.shape[0]
    result = torch.zeros(height * width, device=device)
    blocked = torch.empty_like(result)
    k = intrinsics.tolist()
    seen = depth.reshape(-1)
    inputs = [
        pixels,
        normals,
        wp.mat33(*rotation.flatten().tolist()),
        seen,
        _table_on(samples, radius, seed, device),
        height,
        width,
        wp.vec4(k[0][0], k[1][1], k[0][2], k[1][2]),
        radius,
        bias,
        slope,
        blocked,
    ]
    launch(occlusion_kernels.occlude, count, inputs, device)
    # a reach of 0 leaves each pixel alone
    reach = 0.2 * radius if smooth else 0.0
    inputs = [pixels, seen, blocked, height, width, reach, intensity, result]
    launch(occlusion_kernels.smooth, count, inputs, device)
    return result


@lru_cache(maxsize=8)
def _table_on(samples: int, radius: float, seed: int, device: torch.device) -> torch.Tensor:
    return sample_table(samples, radius, seed).to(device)
