"""The geometry step of `to_glb` for printers: one closed solid without inner voids, on a flat base."""

from __future__ import annotations

import torch

from ..mesh.normals import face_areas
from ..mesh.rebuild.rebuild import closed_surface
from ..mesh.rebuild.remesh import remesh_narrow_band
from ..mesh.rebuild.solid import thin_middle, with_flat_base
from ..mesh.spatial.bvh import TriangleBVH
from .geometry import Mesh, simplified_closed
from .source import Source

MOST_CELLS = 256
"""Along the box: 0.4 mm of a print of 100 mm, as fine as a nozzle."""

BASE = 0.015
"""Of the longest side: how much of the underside a flat base takes."""

LEAST_WALL = 2.0
"""Cells: sheets are made that thick even where no wall is asked for."""

THIN_SHARE = 0.005
"""Of the area: how much must be thinner than LEAST_WALL for that."""

SPARE = 0.25
"""Cells that a wall is made thicker, for what meshing and simplifying take off."""

BACK = 0.9
"""Share of the way back to the surface for vertices of a thickened skin that are not where it is thicker."""


def printable(source: Source, target: int, flat_base: bool, wall: float = 0.0) -> tuple[Mesh, list[str]]:
    """The source as one closed solid whose skin lies on what can be seen of it, its hollows filled even where
    walls have holes; down to `target` faces. With notes for the report.

    What is thinner than `wall` (share of the longest side) is made that thick.
    """
    used = source.vertices[source.faces.reshape(-1).long()]
    low, high = used.amin(dim=0), used.amax(dim=0)
    extent = float((high - low).max())
    step = max(source.voxel, extent / MOST_CELLS)
    made = closed_surface(source.vertices, source.faces, step)
    mesh, notes = (made.vertices, made.faces), made.findings()
    # Of the size that it will have: thickening makes it longer by as much at most.
    asked = wall / (1 - wall) * extent + SPARE * step if wall else 0.0
    thickness = max(asked, LEAST_WALL * step)
    middle = thin_middle(*mesh, thickness)
    thin = float(face_areas(*middle).sum() / face_areas(*mesh).sum()) if len(middle[1]) else 0.0
    if thin > (0.0 if wall else THIN_SHARE):
        mesh = thickened(mesh, middle, thickness)
        if wall:
            notes.append(f"parts thinner than {wall:.2%} of the longest side were thickened")
    if flat_base:
        mesh = with_flat_base(mesh[0], BASE), mesh[1]
        notes.append(f"the lowest {BASE:.1%} was made a flat base")
    return simplified_closed(mesh, target), notes


def thickened(mesh: Mesh, middle: Mesh, thickness: float) -> Mesh:
    """A closed mesh at least `thickness` thick around a surface in the middle of its thin parts, elsewhere as
    it was."""
    low, high = mesh[0].amin(dim=0), mesh[0].amax(dim=0)
    scale = (MOST_CELLS + 6) / MOST_CELLS * float((high - low).max()) + thickness
    tree, core = TriangleBVH(*mesh), TriangleBVH(*middle)
    args = (*mesh, (low + high) / 2, scale, MOST_CELLS, 1.0, 0.0, tree)
    points, faces = remesh_narrow_band(*args, only_outer=True, around=(core, thickness / 2))
    near = tree.closest(points)
    beyond = core.closest(points).distance - thickness / 2  # how far they may move and stay thick enough
    share = (beyond / near.distance.clamp(min=1e-9)).clamp(0, BACK)
    return torch.lerp(points, tree.points_at(near.face, near.barycentric), share[:, None]), faces
