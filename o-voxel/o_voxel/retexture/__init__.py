"""A mesh file with new textures: its positions, and texture coordinates where it has them, stay bit for bit.

Every file becomes a GLB document first (`reading`), is unwrapped where that is asked for or needed
(`unwrapped`) and gets a material of baked textures for each one that it had (`textured`). Imports
`check`, `mesh`, `raster` and `postprocess` of this package. Start reading in `textured`.
"""

from __future__ import annotations

from .mesh_file import MeshFile, Surface
from .reading import MESH_FORMATS, read_mesh
from .textured import RetexturedAsset, textured

__all__ = ["MESH_FORMATS", "MeshFile", "RetexturedAsset", "Surface", "read_mesh", "textured"]
