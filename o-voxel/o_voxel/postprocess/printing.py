"""The geometry step of `to_glb` for printers: one closed skin without inner voids, on a flat base."""

from __future__ import annotations

import torch

from ..errors import MeshError
from ..mesh.rebuild.remesh import remesh_narrow_band
from ..mesh.rebuild.solid import chamber_filling, thin_middle, with_flat_base
from ..mesh.spatial.bvh import TriangleBVH
from .geometry import Mesh, simplified_closed
from .source import Source

MOST_CELLS = 256
"""Along the box: 0.4 mm of a print of 100 mm, as fine as a nozzle."""

BASE = 0.015
"""Of the longest side: how much of the underside a flat base takes."""

SPARE = 0.25
"""Cells that a wall is made thicker, for what meshing and simplifying take off."""


def printable(
    source: Source, reference: TriangleBVH, target: int, band: float, flat_base: bool, wall: float = 0.0
) -> tuple[Mesh, list[str]]:
    """The outer skin of the reference, `band` cells outside of it, its hollows filled even where walls have
    holes; down to `target` faces. With notes for the report.

    What is thinner than `wall` (share of the longest side) is made that thick.
    """
    vertices, faces = reference.vertices, reference.faces
    filling = chamber_filling(vertices, faces)
    tree, notes = reference, []
    if len(filling[1]):
        notes.append("hollows were filled, so that the print is solid")
        faces = torch.cat([faces, filling[1] + len(vertices)])
        vertices = torch.cat([vertices, filling[0]])
        tree = TriangleBVH(vertices, faces)
    resolution = max(source.frame.grid_size)
    while resolution > MOST_CELLS and resolution % 2 == 0:
        resolution //= 2
    low, high = source.frame.aabb
    scale = (resolution + 3 * band) / resolution * float((high - low).max())

    def skin(around: tuple[TriangleBVH, float] | None) -> Mesh:
        room = scale + (0.0 if around is None else around[1])
        args = (vertices, faces, (low + high) / 2, room, resolution, band, 0.0, tree)
        made = remesh_narrow_band(*args, only_outer=True, around=around)
        if not len(made[1]):
            raise MeshError("remeshing found no surface: the mesh lies outside aabb")
        return made

    made = skin(None)
    if wall:
        # Of the size that it will have: thickening makes it longer by as much at most.
        thickness = wall / (1 - wall) * float((made[0].amax(dim=0) - made[0].amin(dim=0)).max())
        thickness += SPARE * scale / resolution
        middle = thin_middle(*made, thickness)
        if len(middle[1]):
            made = skin((TriangleBVH(*middle), thickness / 2))
            notes.append(f"parts thinner than {wall:.2%} of the longest side were thickened")
    vertices, faces = made
    if flat_base:
        vertices = with_flat_base(vertices, BASE)
        notes.append(f"the lowest {BASE:.1%} was made a flat base")
    return simplified_closed((vertices, faces), target), notes
