"""Rasterising triangles into pictures (z-buffer, depth peeling) and into texture space.

Imports `o_voxel.errors`, `o_voxel.kernels` and `o_voxel.backends` only. Start reading in `image.py`.
"""

from __future__ import annotations

from o_voxel.raster.fragments import Fragments, interpolate
from o_voxel.raster.image import peel, rasterize
from o_voxel.raster.texture import rasterize_uv

__all__ = ["Fragments", "interpolate", "peel", "rasterize", "rasterize_uv"]
