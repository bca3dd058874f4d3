"""For printers: how thick walls are, the middle of those that are too thin, and a flat base to stand on."""

from __future__ import annotations

import torch
from torch import Tensor

from ..normals import vertex_normals
from ..spatial.bvh import TriangleBVH
from ..validation import check_mesh


def wall_thickness(vertices: Tensor, faces: Tensor, tree: TriangleBVH | None = None) -> Tensor:
    """How far it is from each vertex [V] of a closed outward surface straight through to the other side; inf
    where neither its ray nor its neighbours' meets one. Raises MeshError."""
    vertices, faces = check_mesh(vertices, faces)
    normals = vertex_normals(vertices, faces)
    extent = float((vertices.amax(dim=0) - vertices.amin(dim=0)).max())
    inwards = vertices - normals * (1e-4 * extent)
    hits = (tree or TriangleBVH(vertices, faces)).cast(inwards, -normals)
    found = torch.where(hits.face >= 0, hits.distance + 1e-4 * extent, torch.inf)
    around = found[faces.long()].amin(dim=1).repeat_interleave(3)
    least = torch.full_like(found, torch.inf).scatter_reduce(0, faces.reshape(-1).long(), around, "amin")
    return torch.where(found.isinf(), least, found)  # a ray that slips out between two faces


def thin_middle(vertices: Tensor, faces: Tensor, wall: float) -> tuple[Tensor, Tensor]:
    """The surfaces [W, 3], [G, 3] in the middle of what is thinner than `wall`; maybe none.

    A vertex's point is half of its thickness below it; faces stay whose three corners are thin. Raises
    MeshError.
    """
    thickness = wall_thickness(vertices, faces)
    thin = thickness < wall
    deep = torch.where(thin, thickness, 0.0)
    middle = vertices - vertex_normals(vertices, faces) * (deep / 2)[:, None]
    return middle, faces[thin[faces.long()].all(dim=1)]


def with_flat_base(vertices: Tensor, share: float) -> Tensor:
    """Vertices [V, 3] with the lowest `share` of the longest side pressed flat (z up).

    All that lies lower moves up to one plane: a round underside becomes a disc, and nothing opens.
    """
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    flat = vertices.clone()
    flat[:, 2].clamp_(min=float(low[2] + share * (high - low).max()))
    return flat
