"""Triangles in texture space to the fragments of an atlas."""

from __future__ import annotations

import torch

from o_voxel.errors import MeshError
from o_voxel.kernels import launch
from o_voxel.raster.fragments import Fragments, check_faces, check_resolution
from o_voxel.raster.image import draw, project
from o_voxel.raster.launch import draw_keys


def rasterize_uv(
    uvs: torch.Tensor, faces: torch.Tensor, resolution: tuple[int, int], conservative: bool = True
) -> Fragments:
    """The face at each texel of an atlas.

    uvs: [V, 2] float32, (0, 0) is the outer corner of the texel in row 0, column 0; u runs along columns, v
    along rows. faces: [F, 3] integer into uvs. resolution: (height, width). A texel belongs to the face that
    covers its centre (the lowest id where charts overlap). With `conservative`, texels whose square a face
    touches without covering the centre go to the nearest such face, with the barycentrics of that face's
    nearest point, so that filtering at chart borders never reads an unwritten texel. Faces with a corner that
    is not finite are left out. Always the portable kernels: the result is the same on every device.
    Raises MeshError, ArgumentError.
    """
    height, width = check_resolution(resolution)
    if uvs.ndim != 2 or uvs.shape[1] != 2:
        raise MeshError(f"texture coordinates must be [V, 2], got {list(uvs.shape)}")
    faces = check_faces(faces, uvs.shape[0], uvs.device)
    uvs = uvs.detach().float().contiguous()
    covered = _covered(uvs, faces, height, width)
    if conservative:
        touched = _touched(uvs, faces, height, width, covered)
    else:
        touched = torch.empty(0, dtype=torch.int64, device=uvs.device)
    return _resolve(uvs, faces, covered, touched, height, width)


def _covered(uvs: torch.Tensor, faces: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[H*W] int64 keys of the faces that cover texel centres."""
    clip = torch.zeros((uvs.shape[0], 4), device=uvs.device)
    clip[:, :2] = uvs * 2.0 - 1.0
    clip[:, 3] = 1.0
    nothing = torch.empty(0, dtype=torch.int64, device=uvs.device)
    return draw(clip, project(clip, height, width), faces, height, width, nothing)


def _touched(
    uvs: torch.Tensor, faces: torch.Tensor, height: int, width: int, covered: torch.Tensor
) -> torch.Tensor:
    """[H*W] int64 keys of the nearest faces that touch texels which `covered` leaves empty."""
    from o_voxel.raster import draw_kernels

    inputs = [uvs, faces, covered]
    return draw_keys(draw_kernels.draw_touched, faces.shape[0], height, width, inputs, uvs.device)


def _resolve(
    uvs: torch.Tensor,
    faces: torch.Tensor,
    covered: torch.Tensor,
    touched: torch.Tensor,
    height: int,
    width: int,
) -> Fragments:
    from o_voxel.raster import draw_kernels

    fragments = Fragments.unwritten(height, width, uvs.device)
    inputs = [uvs, faces, covered, touched, height, width]
    launch(draw_kernels.resolve_uv, height * width, [*inputs, *fragments.flat()], uvs.device)
    return fragments
