"""The geometry step of `to_glb` for printers: one closed skin without inner voids, on a flat base."""

from __future__ import annotations

import torch

from ..errors import MeshError
from ..mesh.bvh import TriangleBVH
from ..mesh.remesh import remesh_narrow_band
from ..mesh.solid import chamber_filling, with_flat_base
from .geometry import Mesh, simplified_closed
from .source import Source

MOST_CELLS = 256
"""Along the box: 0.4 mm of a print of 100 mm, as fine as a nozzle."""

BASE = 0.015
"""Of the longest side: how much of the underside a flat base takes."""


def printable(
    source: Source, reference: TriangleBVH, target: int, band: float, flat_base: bool
) -> tuple[Mesh, list[str]]:
    """The outer skin of the reference, `band` cells outside of it, its hollows filled even where walls have
    holes; down to `target` faces. With notes for the report."""
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
    vertices, faces = remesh_narrow_band(
        vertices, faces, (low + high) / 2, scale, resolution, band, 0.0, tree, only_outer=True
    )
    if not len(faces):
        raise MeshError("remeshing found no surface: the mesh lies outside aabb")
    if flat_base:
        vertices = with_flat_base(vertices, BASE)
        notes.append(f"the lowest {BASE:.1%} was made a flat base")
    return simplified_closed((vertices, faces), target), notes
