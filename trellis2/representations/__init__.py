"""What a generation gives: meshes, voxels with attributes, and meshes that carry either voxels or textures.

May import torch, `trellis2.errors` and `o_voxel`. Start reading at `mesh.py`; `mesh_with_voxel.py` is the
pipeline's output. World frame: right handed, Z up, the cube of side 1 around the origin.
"""

from __future__ import annotations

from .materials import AlphaMode, FilterMode, PbrMaterial, Texture, WrapMode
from .mesh import Mesh
from .mesh_with_pbr_material import MeshWithPbrMaterial
from .mesh_with_voxel import MeshWithVoxel
from .voxel import PBR_ATTR_LAYOUT, Voxel

__all__ = [
    "PBR_ATTR_LAYOUT",
    "AlphaMode",
    "FilterMode",
    "Mesh",
    "MeshWithPbrMaterial",
    "MeshWithVoxel",
    "PbrMaterial",
    "Texture",
    "Voxel",
    "WrapMode",
]
