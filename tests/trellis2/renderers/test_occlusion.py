"""Screen-space occlusion against a plain loop and on shapes with a known answer."""

from __future__ import annotations

import math

import numpy as np
import torch

from trellis2.renderers.shading.occlusion import BACKGROUND_DEPTH, openness, sample_table
from trellis2.utils.cameras import intrinsics_from_fov

INTRINSICS = intrinsics_from_fov(math.radians(40.0))
TOWARDS_CAMERA = torch.tensor([0.0, 0.0, -1.0])


def by_loop(pixel: int, normal: np.ndarray, depth: np.ndarray, samples: int, radius: float) -> float:
    """The definition, sample by sample."""
    size = depth.shape[0]
    row, column = divmod(pixel, size)
    focal = float(INTRINSICS[0, 0])
    z = depth[row, column]
    point = np.array([((column + 0.5) / size - 0.5) / focal * z, ((row + 0.5) / size - 0.5) / focal * z, z])
    hits = 0
    for offset in sample_table(samples, radius, 0)[(row % 4) * 4 + column % 4].numpy():
        place = point + (offset if offset @ normal >= 0 else -offset)
        x = math.floor((place[0] / place[2] * focal + 0.5) * size)
        y = math.floor((place[1] / place[2] * focal + 0.5) * size)
        gap = place[2] - depth[min(max(y, 0), size - 1), min(max(x, 0), size - 1)]
        hits += 1e-6 <= gap < radius
    return hits / samples


def test_the_kernel_follows_the_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    depth = 2.0 + 0.05 * torch.rand((16, 16), generator=generator)
    depth[:, 12:] = BACKGROUND_DEPTH
    pixels = torch.nonzero(depth.reshape(-1) < 10.0).squeeze(1)
    normals = torch.nn.functional.normalize(
        torch.randn((len(pixels), 3), generator=generator) * 0.3 + TOWARDS_CAMERA, dim=-1
    )
    everywhere = torch.zeros((depth.numel(), 3))
    everywhere[pixels] = normals
    given = (pixels, everywhere, torch.eye(3), depth, INTRINSICS)
    light = openness(*given, radius=0.3, slope=0.0, samples=32, smooth=False)
    got = 1.0 - light[pixels]
    assert (light[depth.reshape(-1) == BACKGROUND_DEPTH] == 0).all()
    expected = [
        by_loop(int(p), n.numpy().astype(np.float64), depth.numpy().astype(np.float64), 32, 0.3)
        for p, n in zip(pixels, normals, strict=True)
    ]
    # a sample on a pixel border may fall either way in single precision
    assert (got - torch.tensor(expected)).abs().max() <= 1.01 / 32
    assert ((got - torch.tensor(expected)).abs() < 1e-6).float().mean() > 0.95
    assert got.max() > 0.2


def test_a_tilted_plane_does_not_occlude_itself() -> None:
    size = 64
    rays = (torch.arange(size) + 0.5) / size - 0.5
    # the plane z = 2 + x seen under perspective: z = 2 / (1 - ray)
    depth = (2.0 / (1.0 - rays / INTRINSICS[0, 0])).expand(size, size).contiguous()
    pixels = torch.arange(size * size)
    normal = torch.tensor([[1.0, 0.0, -1.0]]) / math.sqrt(2.0)
    normals = normal.repeat(size * size, 1)

    def inner(slope: float) -> torch.Tensor:
        """Away from the borders, beyond which the last pixel is read again."""
        blocked = 1.0 - openness(pixels, normals, torch.eye(3), depth, INTRINSICS, slope=slope)
        return blocked.reshape(size, size)[8:56, 8:56]

    assert inner(1.0).max() == 0.0
    assert inner(0.0).max() > 0.0  # the published margin does speckle here


def test_a_step_darkens_its_foot_evenly_and_the_same_every_time() -> None:
    size = 64
    depth = torch.full((size, size), 2.0)
    depth[:, :32] = 1.95
    pixels = torch.arange(size * size)
    normals = TOWARDS_CAMERA.repeat(size * size, 1)
    # normals may be given in any frame, with the rotation to the camera's
    turn = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    given = (pixels, normals @ turn, turn, depth, INTRINSICS)
    blocked = 1.0 - openness(*given).reshape(size, size)
    assert blocked[8:56, 33].min() > 0.05
    assert blocked[8:56, 60].max() == 0.0
    assert blocked[8:56, 10].max() == 0.0
    # along the step nothing changes, so neither may the darkness: no pattern
    assert blocked[8:56, 33].std() < 0.02
    assert torch.equal(blocked, 1.0 - openness(*given).reshape(size, size))
