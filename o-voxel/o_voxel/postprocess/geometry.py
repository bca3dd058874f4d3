"""The geometry steps of `to_glb`: a clean mesh within the face budget, by repair or by remeshing."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MeshError
from ..mesh.arrays.edges import edge_table
from ..mesh.quality import weld
from ..mesh.rebuild.rebuild import Rebuilt, closed_surface, without_floaters
from ..mesh.rebuild.remesh import remesh_narrow_band
from ..mesh.repair.cleanup import (
    keep_faces,
    remove_degenerate_faces,
    remove_duplicate_faces,
    repair_non_manifold_edges,
)
from ..mesh.repair.components import remove_small_components
from ..mesh.repair.holes import fill_holes
from ..mesh.repair.manifold import make_manifold
from ..mesh.repair.orientation import is_orientable, unify_orientations
from ..mesh.simplification.flips import even_out
from ..mesh.simplification.simplify import CLOSE_ENOUGH, simplify
from ..mesh.spatial.bvh import TriangleBVH
from ..sampling import sample_nearest
from .source import Source

HOLE_PERIMETER = 3e-2
SMALLEST_COMPONENT = 1e-5  # area
MOST_CROWDED = 1e-4  # share of edges with three faces or more that simplifying still sorts out
MOST_STEPS = 176  # of the lattice that a surface is rebuilt on, along its longest side
TRANSLUCENT = 0.9  # alpha
LOW_POLY = 20_000  # faces; with more, single triangles do not show
_CORRECTIONS = 5  # lowered budgets that are tried; one is nearly always enough

Mesh = tuple[Tensor, Tensor]


def clean_and_simplify(mesh: Mesh, target: int) -> Mesh:
    """Down to `target` faces in two stages, cleaned after each; normals then point outwards.

    Edges of three and more faces are cut only at the end: cut earlier, the copies would simplify apart.
    Cutting makes loops of open chains that end at such edges, so holes are looked for once more. What fills
    them on a frayed mesh can be a tenth of its faces: the budget is then lowered by as much.
    """
    budget = _first_budget(mesh, target)
    mesh = _simplified(_simplified(mesh, 3 * target), budget)
    finished = _finished(mesh)
    for _ in range(_CORRECTIONS):
        if len(finished[1]) <= target:
            break
        budget = budget * target // len(finished[1])
        mesh = _simplified(mesh, max(budget, 1))
        finished = min(finished, _finished(mesh), key=lambda made: len(made[1]))
    return unify_orientations(*finished, outward=True)


def _simplified(mesh: Mesh, budget: int) -> Mesh:
    mesh = simplify(*mesh, budget)
    mesh = _without_flaps(remove_degenerate_faces(*remove_duplicate_faces(*mesh)))
    return fill_holes(*_without_crumbs(mesh), HOLE_PERIMETER)


def _finished(mesh: Mesh) -> Mesh:
    return _fill_true_holes(repair_non_manifold_edges(*mesh))


def _fill_true_holes(mesh: Mesh) -> Mesh:
    """Fill holes of a mesh with cuts; loops that are closed by faces at the same place stay as they are."""
    vertices, faces = fill_holes(*mesh, HOLE_PERIMETER)
    known, before = len(mesh[0]), len(mesh[1])
    if len(faces) == before:
        return mesh
    place = weld(mesh[0])
    welded = place[mesh[1].long()]
    edges, uses = torch.unique(_edge_keys(welded, known), return_counts=True)
    fans = faces[before:].long()
    centre = fans.amax(dim=1)  # each fan's new vertex
    rim = place[fans[fans < known].reshape(-1, 2)]
    keys = torch.minimum(rim[:, 0], rim[:, 1]) * known + torch.maximum(rim[:, 0], rim[:, 1])
    alone = uses[torch.searchsorted(edges, keys)] == 1
    true_hole = torch.zeros(len(vertices), dtype=torch.bool, device=faces.device)
    true_hole[centre[alone]] = True
    keep = torch.ones(len(faces), dtype=torch.bool, device=faces.device)
    keep[before:] = true_hole[centre]
    return keep_faces(vertices, faces, keep)


def _edge_keys(faces: Tensor, count: int) -> Tensor:
    start, end = faces.reshape(-1), faces.roll(-1, dims=1).reshape(-1)
    return torch.minimum(start, end) * count + torch.maximum(start, end)


def _without_flaps(mesh: Mesh) -> Mesh:
    """Drop single faces that hang on an edge between two others.

    Collapses fold pairs of faces flat; of such a pair one goes as a duplicate, and the other is left hanging.
    """
    vertices, faces = mesh
    keys = _edge_keys(faces.long(), len(vertices))
    _, edge, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    uses = counts[edge].reshape(-1, 3)
    flaps = ((uses == 1).sum(dim=1) == 2) & ((uses > 2).sum(dim=1) == 1)
    return keep_faces(vertices, faces, ~flaps) if bool(flaps.any()) else mesh


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
    return simplified_closed((vertices, faces), target)


def is_frayed(mesh: Mesh) -> bool:
    """Whether a surface must be rebuilt to come out closed and outward: it is open, one-sided, or edges of
    three faces are common.

    A handful of such edges is mended on the simplified mesh.
    """
    table = edge_table(mesh[1], len(mesh[0]))
    if bool((table.counts == 1).any()) or float((table.counts > 2).float().mean()) > MOST_CROWDED:
        return True
    return not is_orientable(mesh[1], len(mesh[0]), table)


def rebuilt(source: Source) -> Rebuilt:
    """The source's surface as one closed, outward one at the voxels' resolution, or what suits its size."""
    used = source.vertices[source.faces.reshape(-1).long()]
    extent = float((used.amax(dim=0) - used.amin(dim=0)).max())
    see_through = None
    if source.translucent:
        centres = source.vertices[source.faces.long()].mean(dim=1)
        places = (centres - source.frame.origin) / source.frame.voxel_size
        see_through = sample_nearest(source.grid, source.attributes[:, 5:], places)[:, 0] < TRANSLUCENT
    step = max(source.voxel, extent / MOST_STEPS)
    return closed_surface(source.vertices, source.faces, step, see_through=see_through)


def _first_budget(mesh: Mesh, target: int) -> int:
    """What a collapse is asked for, which may leave a little more."""
    return max(4, int(target / CLOSE_ENOUGH)) if len(mesh[1]) > target else target


def simplified_closed(mesh: Mesh, target: int) -> Mesh:
    """A closed mesh down to at most `target` faces, closed and manifold again afterwards."""
    budget = _first_budget(mesh, target)
    for _ in range(_CORRECTIONS):
        mesh = without_floaters(*make_manifold(*simplify(*mesh, budget)))
        if len(mesh[1]) <= target:
            break
        budget = max(4, budget * target // len(mesh[1]) - 2)
    return mesh


def evened(mesh: Mesh) -> Mesh:
    """A mesh of few faces with more even ones; any other as it is."""
    return (mesh[0], even_out(*mesh)) if len(mesh[1]) <= LOW_POLY else mesh
