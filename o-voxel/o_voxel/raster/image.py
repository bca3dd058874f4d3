"""Triangles in clip space to the fragments of a picture."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from o_voxel.backends import pick
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.kernels import launch
from o_voxel.raster.fragments import Fragments, check_faces, check_resolution
from o_voxel.raster.launch import draw_keys


def rasterize(positions: torch.Tensor, faces: torch.Tensor, resolution: tuple[int, int]) -> Fragments:
    """The nearest triangle at each pixel centre.

    positions: [V, 4] float32 clip coordinates (x, y, z, w); row 0 of the picture is y/w = -1, column 0 is
    x/w = -1. faces: [F, 3] integer. resolution: (height, width). Both sides of a triangle are drawn, clipped
    at the near plane z = -w and cut off beyond z = w. Equal depths go to the lower face id. Faces with a
    corner that is not finite are not drawn. Raises MeshError, ArgumentError, BackendError.
    """
    return next(peel(positions, faces, resolution, 1))


def peel(
    positions: torch.Tensor, faces: torch.Tensor, resolution: tuple[int, int], layers: int
) -> Iterator[Fragments]:
    """Up to `layers` depth layers front to back, arguments as for `rasterize`.

    Layer n holds at each pixel the n-th nearest triangle (faces of equal depth follow each other by face id).
    The first layer always comes; later ones only until one would be empty.
    """
    if layers < 1:
        raise ArgumentError(f"peeling needs at least 1 layer, got {layers}")
    height, width = check_resolution(resolution)
    if positions.ndim != 2 or positions.shape[1] != 4:
        raise MeshError(f"clip positions must be [V, 4], got {list(positions.shape)}")
    faces = check_faces(faces, positions.shape[0], positions.device)
    positions = positions.detach().float().contiguous()
    if pick("raster", positions.device).portable or not faces.shape[0]:
        yield from _peel(positions, faces, height, width, layers)
        return
    from o_voxel.raster import nvdiffrast_backend

    yield from nvdiffrast_backend.peel(positions, faces, height, width, layers)


def _peel(
    positions: torch.Tensor, faces: torch.Tensor, height: int, width: int, layers: int
) -> Iterator[Fragments]:
    behind = torch.empty(0, dtype=torch.int64, device=positions.device)
    screen = project(positions, height, width)
    for layer in range(layers):
        keys = draw(positions, screen, faces, height, width, behind)
        fragments = _resolve(positions, faces, keys, height, width)
        if layer and not bool(fragments.mask.any()):
            return
        yield fragments
        behind = keys


def project(positions: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[V, 4] subpixel x, y, z/w and a code that says whether the vertex is in front of the near plane."""
    from o_voxel.raster import draw_kernels

    screen = torch.empty_like(positions)
    inputs = [positions, height, width, screen]
    launch(draw_kernels.project, positions.shape[0], inputs, positions.device)
    return screen


def draw(
    positions: torch.Tensor,
    screen: torch.Tensor,
    faces: torch.Tensor,
    height: int,
    width: int,
    behind: torch.Tensor,
) -> torch.Tensor:
    """[H*W] int64 keys of the nearest faces, or of the nearest after `behind` where that is not empty."""
    from o_voxel.raster import draw_kernels

    inputs = [positions, screen, faces, behind]
    return draw_keys(draw_kernels.draw_faces, faces.shape[0], height, width, inputs, positions.device)


def _resolve(
    positions: torch.Tensor, faces: torch.Tensor, keys: torch.Tensor, height: int, width: int
) -> Fragments:
    from o_voxel.raster import draw_kernels

    fragments = Fragments.unwritten(height, width, positions.device)
    inputs = [positions, faces, keys, height, width]
    launch(draw_kernels.resolve, height * width, [*inputs, *fragments.flat()], positions.device)
    return fragments
