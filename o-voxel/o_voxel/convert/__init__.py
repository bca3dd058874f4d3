"""Meshes to voxels and back: flexible dual grids, and textures to attribute voxels.

Imports `o_voxel.sampling` and `o_voxel.errors` only. Start reading in `to_mesh`, then `from_mesh`
and `attributes`.
"""

from .attributes import textured_mesh_to_volumetric_attr
from .from_mesh import mesh_to_flexible_dual_grid
from .to_mesh import flexible_dual_grid_to_mesh

__all__ = ["flexible_dual_grid_to_mesh", "mesh_to_flexible_dual_grid", "textured_mesh_to_volumetric_attr"]
