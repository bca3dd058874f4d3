"""nvdiffrast in place of the portable kernels, where it is installed and the mesh is on a GPU.

Its licence is for non-commercial use; nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch

from o_voxel.errors import MeshError
from o_voxel.raster.fragments import Fragments

# nvdiffrast stores face ids in a float.
MAX_FACES = 2**24 - 1


@lru_cache(maxsize=8)
def _context(index: int) -> Any:
    import nvdiffrast.torch as dr

    return dr.RasterizeCudaContext(device=torch.device("cuda", index))


def peel(
    positions: torch.Tensor, faces: torch.Tensor, height: int, width: int, layers: int
) -> Iterator[Fragments]:
    """As `o_voxel.raster.peel`; raises MeshError beyond nvdiffrast's number of faces."""
    import nvdiffrast.torch as dr

    if faces.shape[0] > MAX_FACES:
        raise MeshError(
            f"nvdiffrast draws at most {MAX_FACES} faces and the mesh has {faces.shape[0]}: "
            "set RASTER_BACKEND=portable or simplify first"
        )

    index = positions.device.index
    context = _context(torch.cuda.current_device() if index is None else index)
    clip = positions[None]
    with dr.DepthPeeler(context, clip, faces, (height, width)) as peeler:
        for layer in range(layers):
            raster, _ = peeler.rasterize_next_layer()
            fragments = from_raster(raster[0])
            if layer and not bool(fragments.mask.any()):
                return
            yield fragments


def from_raster(raster: torch.Tensor) -> Fragments:
    """nvdiffrast's (u, v, z/w, face id + 1) [H, W, 4] as fragments."""
    face_id = raster[..., 3].to(torch.int32) - 1
    depth = torch.where(face_id >= 0, raster[..., 2], torch.ones_like(raster[..., 2]))
    return Fragments(face_id, raster[..., :2].contiguous(), depth)
