"""Operations on triangle meshes, one file each; torch tensors in and out, any device.

Vertices are float32 [V, 3], faces int32 [F, 3], normals by the right-hand rule. Imports only `kernels`,
`backends` and `errors` of this package. Start reading in `repair`, then `simplify`, `bvh` and `remesh`.
"""

from __future__ import annotations

from .charts.unwrap import Unwrapped, unwrap
from .normals import face_areas, face_normals, vertex_normals
from .quality import MeshQuality, mesh_quality
from .rebuild.remesh import outer_shell, remesh_narrow_band
from .repair.cleanup import (
    remove_degenerate_faces,
    remove_duplicate_faces,
    remove_non_manifold_faces,
    remove_unreferenced_vertices,
    repair_non_manifold_edges,
    weld_vertices,
)
from .repair.components import face_components, keep_largest_component, remove_small_components
from .repair.holes import fill_holes
from .repair.orientation import orient_outward, unify_orientations
from .simplification.simplify import simplify
from .spatial.bvh import Closest, Hits, TriangleBVH
from .validation import check_mesh

__all__ = [
    "Closest",
    "Hits",
    "MeshQuality",
    "TriangleBVH",
    "Unwrapped",
    "check_mesh",
    "face_areas",
    "face_components",
    "face_normals",
    "fill_holes",
    "keep_largest_component",
    "mesh_quality",
    "orient_outward",
    "outer_shell",
    "remesh_narrow_band",
    "remove_degenerate_faces",
    "remove_duplicate_faces",
    "remove_non_manifold_faces",
    "remove_small_components",
    "remove_unreferenced_vertices",
    "repair_non_manifold_edges",
    "simplify",
    "unify_orientations",
    "unwrap",
    "vertex_normals",
    "weld_vertices",
]
