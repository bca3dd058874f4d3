"""The geometry steps of `to_glb`: a clean mesh within the face budget, by repair or by remeshing."""

from __future__ import annotations

from torch import Tensor

from ..errors import MeshError
from ..mesh.bvh import TriangleBVH
from ..mesh.components import remove_small_components
from ..mesh.holes import fill_holes
from ..mesh.orientation import unify_orientations
from ..mesh.remesh import remesh_narrow_band
from ..mesh.repair import remove_degenerate_faces, remove_duplicate_faces, repair_non_manifold_edges
from ..mesh.simplify import simplify
from .source import Source

HOLE_PERIMETER = 3e-2
SMALLEST_COMPONENT = 1e-5  # area

Mesh = tuple[Tensor, Tensor]


def clean_and_simplify(mesh: Mesh, target: int) -> Mesh:
    """Down to `target` faces in two stages, repaired after each; normals then point outwards."""
    for budget in (3 * target, target):
        mesh = simplify(*mesh, budget)
        mesh = remove_duplicate_faces(*mesh)
        mesh = remove_degenerate_faces(*mesh)
        mesh = repair_non_manifold_edges(*mesh)
        mesh = _without_crumbs(mesh)
        mesh = fill_holes(*mesh, HOLE_PERIMETER)
    return unify_orientations(*mesh, outward=True)


def _without_crumbs(mesh: Mesh) -> Mesh:
    """Drop tiny components, unless the whole mesh is tiny."""
    kept = remove_small_components(*mesh, SMALLEST_COMPONENT)
    return kept if len(kept[1]) else mesh


def remesh_and_simplify(
    source: Source, reference: TriangleBVH, target: int, band: float, project: float, only_outer: bool
) -> Mesh:
    """The closed offset surface of the reference at the voxels' own resolution, down to `target` faces."""
    resolution = max(source.frame.grid_size)
    low, high = source.frame.aabb
    # Room for the offset surface around a mesh that fills its box.
    scale = (resolution + 3 * band) / resolution * float((high - low).max())
    vertices, faces = remesh_narrow_band(
        reference.vertices,
        reference.faces,
        (low + high) / 2,
        scale,
        resolution,
        band,
        project,
        reference,
        only_outer=only_outer,
    )
    if not len(faces):
        raise MeshError("remeshing found no surface: the mesh lies outside aabb")
    return remove_duplicate_faces(*remove_degenerate_faces(*simplify(vertices, faces, target)))
