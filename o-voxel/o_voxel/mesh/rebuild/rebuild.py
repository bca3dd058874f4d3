"""Rebuilding a frayed surface: one closed, outward, manifold surface that follows what can be seen of it.

Space that a ball can reach from afar is outside; all else is solid (a morphological closing: Serra, "Image
Analysis and Mathematical Morphology", 1982). So the outside does not leak in through slits and missing
voxels, inner shells vanish, and open sheets stay as thin plates. The border of the solid is meshed a little
outside of the input and then moved onto it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import kernels
from ...errors import ArgumentError, MeshError
from ..arrays.groups import nonzero_1d
from ..normals import face_areas, vertex_normals
from ..repair.cleanup import keep_faces
from ..repair.components import component_areas, face_components
from ..spatial.band import Band as Cells
from ..spatial.bvh import TriangleBVH
from ..spatial.lattice import Band, lattice_around, spread, surface_band
from ..validation import check_mesh
from .isosurface import CORNERS, Isosurface, surface_nets
from .spaces import INSIDE, OUTSIDE, spaces

OFFSET = 0.5
"""Steps outside of the input at which the border is meshed, so that sheets have two sides."""

CLOSING = 1.0
"""Steps: half the width of slits that are closed wherever they are."""

GAP = 0.08
"""Of the largest extent: how wide the openings are that decoders leave in hollow bodies."""

LEAST_HALF = 0.3
"""Steps from a thin sheet's middle at which each of its sides stays."""

RELAXATIONS = 2
"""Rounds that spread vertices evenly along the surface."""

SHORT = 0.1
"""Share of the way to the input that vertices do not go."""

DEEPEST = 2.0
"""Steps: how deep inside the solid still counts when the thickness is judged."""

SMALLEST_PART = 3e-4
"""Share of the whole area below which a part is a floater."""

WORTH_TELLING = 1e-3
"""Share of the area over closed openings from which a person is told."""


@dataclass(frozen=True)
class Rebuilt:
    """A closed surface: vertices [V, 3], faces [F, 3]; `closed` is the share of its area that spans openings
    of the input, `dropped` how many floaters were left out."""

    vertices: Tensor
    faces: Tensor
    closed: float
    dropped: int

    def findings(self) -> list[str]:
        """What a person should know of the repair."""
        found = []
        if self.closed >= WORTH_TELLING:
            found.append(f"openings were closed: {self.closed:.1%} of the surface spans them")
        if self.dropped:
            parts = "1 loose part was" if self.dropped == 1 else f"{self.dropped:,} loose parts were"
            found.append(f"{parts} dropped, each below {SMALLEST_PART:.2%} of the surface")
        return found


def rebuild(
    vertices: Tensor, faces: Tensor, step: float, gap: float | None = None, see_through: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Vertices and faces of `closed_surface`."""
    made = closed_surface(vertices, faces, step, gap, see_through)
    return made.vertices, made.faces


def closed_surface(
    vertices: Tensor, faces: Tensor, step: float, gap: float | None = None, see_through: Tensor | None = None
) -> Rebuilt:
    """A closed surface around vertices [V, 3], faces [F, 3] of any state, on a lattice of spacing `step`.

    Openings up to `gap` wide (mesh units; None: GAP of the largest extent) into hollow bodies are closed, and
    all slits of up to 2 CLOSING steps. Parts of less than SMALLEST_PART of the area go. `see_through` [F]
    bool marks faces through which one sees: the empty space behind them stays empty.

    Raises:
        MeshError: invalid arrays.
        ArgumentError: a step or a gap that cannot be.
    """
    vertices, faces = check_mesh(vertices, faces)
    used = vertices[faces.reshape(-1).long()]
    extent = float((used.amax(dim=0) - used.amin(dim=0)).max())
    gap = GAP * extent if gap is None else gap
    if not step > 0 or not gap > 0:
        raise ArgumentError(f"step and gap must be above 0, got {step} and {gap}")
    radius = max(gap / 2 / step, CLOSING + OFFSET)
    reach = math.ceil(radius) + 1
    lattice = lattice_around(used, step, reach + 1)
    band = surface_band(vertices, faces, lattice, reach)
    band, label = spaces(band, radius, CLOSING, see_through)
    depth = solid_depth(band, label)
    cells = _manifold_cells(band, -depth.clamp(-DEEPEST, DEEPEST))
    surface = surface_nets(cells, max(lattice.shape) + 1)
    pulled, over_gap = _pulled_back(surface, band, depth)
    points = lattice.to_world(_evenly_spread(pulled, surface.faces))
    areas = face_areas(points, surface.faces)
    spans = areas[over_gap[surface.faces.long()].all(dim=1)].sum() / areas.sum()
    parts = int(face_components(surface.faces, len(points)).max()) + 1
    points, faces = without_floaters(points, surface.faces)
    left = int(face_components(faces, len(points)).max()) + 1
    return Rebuilt(points, faces, float(spans), parts - left)


def solid_depth(band: Band, label: Tensor) -> Tensor:
    """How deep [P] the band's points lie inside the closed solid, in steps, if it is OFFSET larger than the
    input: OFFSET on a surface that the outside touches and on both sides of a sheet, negative outside.
    """
    from ..spatial.lattice_kernels import spread_seeds_kernel

    outside, inside = label == OUTSIDE, label == INSIDE
    beside = _beside(band, inside)
    excess = torch.where(outside & ~beside, band.distance.clamp(max=CLOSING + 1.0) - CLOSING, 0.0)
    number = torch.arange(len(label), dtype=torch.int32, device=label.device)
    seed = torch.where(outside, number, -1)
    distance = torch.where(outside, -excess, torch.inf)
    _, ny, nz = band.lattice.shape
    fixed = [band.keys, band.rows, ny, nz, excess]
    _, distance = spread(spread_seeds_kernel, fixed, seed, distance, math.ceil(CLOSING + OFFSET) + 1)
    closed = distance - (CLOSING - OFFSET)
    solid = torch.where(inside, DEEPEST, OFFSET - band.distance)
    return torch.where(outside, OFFSET - band.distance, torch.maximum(solid, closed))


def _beside(band: Band, inside: Tensor) -> Tensor:
    """Which of the band's points [P] have a neighbour among those marked `inside` [P]."""
    _, ny, nz = band.lattice.shape
    border = torch.zeros(len(inside), dtype=torch.bool, device=inside.device)
    here = nonzero_1d(inside)
    keys = band.keys[here]
    for step in (1, -1, nz, -nz, ny * nz, -ny * nz):
        row = band.rows[(keys + step).long()]
        border[row[row >= 0].long()] = True
    return border


def _manifold_cells(band: Band, values: Tensor) -> Cells:
    """Cells in which the field [P] changes sign, once every ambiguous cell has been filled.

    Where a cell's inner corners touch along a diagonal only, its surface would have an edge of four faces:
    the corners between them turn inside until no such cell is left (a well-composed set: Latecki, Eckhardt,
    Rosenfeld, 1995).
    """
    from ..spatial.lattice_kernels import ambiguous_kernel, mixed_cells_kernel

    _, ny, nz = band.lattice.shape
    values = values.contiguous()
    offsets = (CORNERS.to(band.keys.device) * torch.tensor([ny * nz, nz, 1], device=band.keys.device)).sum(1)
    while True:
        inside = (values < 0).to(torch.uint8)
        mixed = torch.empty_like(inside)
        inputs = [band.keys, band.rows, ny, nz, inside, mixed]
        kernels.launch(mixed_cells_kernel, len(inside), inputs, inside.device)
        lowest = band.keys[nonzero_1d(mixed)].long()
        corners = band.rows[lowest[:, None] + offsets]  # [N, 8]
        fill = torch.zeros_like(inside)
        kernels.launch(ambiguous_kernel, len(corners), [corners.reshape(-1), inside, fill], inside.device)
        filled = fill.bool()
        if not bool(filled.any()):
            break
        values = torch.where(filled, -0.3, values)
    xy = torch.div(lowest, nz, rounding_mode="floor")
    x = torch.div(xy, ny, rounding_mode="floor")
    cells = torch.stack([x, xy - x * ny, lowest - xy * nz], dim=1)
    nothing = torch.zeros((0, 0), dtype=torch.int64, device=values.device)
    return Cells(band.keys, values, cells, corners.long(), [], nothing, nothing)


def _pulled_back(surface: Isosurface, band: Band, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] (in steps) moved onto the input, and which of them lie over gaps instead [V]; those of
    thin sheets stay LEAST_HALF away from it."""
    points = surface.vertices
    if not len(points):
        raise MeshError("nothing is left of the surface to rebuild")
    normals = vertex_normals(points, surface.faces)
    nearest, face = band.nearest(points)
    way = nearest - points
    distance = torch.linalg.vector_norm(way, dim=1)
    over_gap = (distance > OFFSET + 0.6) | (face < 0)
    nearest = torch.where(over_gap[:, None], points - OFFSET * normals, nearest)
    below = band.sample(depth.clamp(-DEEPEST, DEEPEST), nearest - normals, DEEPEST)
    apart = _least_offset(points, nearest, surface.faces, normals, below < OFFSET + 0.7)
    # Not all the way: neighbours with the same nearest point must stay apart.
    return torch.lerp(nearest, points, SHORT) + normals * apart[:, None], over_gap


def _least_offset(points: Tensor, nearest: Tensor, faces: Tensor, normals: Tensor, thin: Tensor) -> Tensor:
    """How far [V] vertices [V, 3] stay outside of the input, so that a wall is no thinner than 2 LEAST_HALF.

    `nearest` [V, 3] is where they move on the input, `thin` [V] marks those that may lie on a wall: how thick
    it is tells the other side, found straight through before either has moved. All in steps.
    """
    offset = torch.zeros(len(points), device=points.device)
    corners = faces[thin[faces.long()].any(dim=1)]
    if not len(corners):
        return offset
    inwards = -normals[thin]
    wall = TriangleBVH(points, corners).cast(points[thin] + 1e-3 * inwards, inwards)
    other = (nearest[corners[wall.face.clamp(min=0).long()].long()] * wall.barycentric[:, :, None]).sum(dim=1)
    thickness = ((other - nearest[thin]) * inwards).sum(dim=1)
    thickness = torch.where(wall.face >= 0, thickness, torch.inf)
    offset[thin] = (LEAST_HALF - thickness / 2).clamp(0, LEAST_HALF)
    return _smoothed(offset, faces)


def _evenly_spread(points: Tensor, faces: Tensor) -> Tensor:
    """Vertices [V, 3] moved along the surface, half of the way to the mean of their neighbours a round.

    Nearest points bunch up on a noisy input and turn faces over: few charts could be laid flat.
    """
    corners = faces.reshape(-1).long()
    ends = faces.roll(-1, dims=1).reshape(-1).long()
    degree = torch.bincount(corners, minlength=len(points)).clamp(min=1)  # closed: an edge out per corner
    for _ in range(RELAXATIONS):
        mean = torch.zeros_like(points).index_add_(0, corners, points[ends]) / degree[:, None]
        move = 0.5 * (mean - points)
        normals = vertex_normals(points, faces)
        points = points + move - normals * (move * normals).sum(dim=1, keepdim=True)
    return points


def _smoothed(values: Tensor, faces: Tensor, rounds: int = 2) -> Tensor:
    """Values [V] averaged over the corners of the faces around each vertex."""
    corners = faces.reshape(-1).long()
    count = torch.bincount(corners, minlength=len(values)).clamp(min=1)
    for _ in range(rounds):
        mean = values[faces.long()].mean(dim=1)
        values = torch.zeros_like(values).index_add_(0, corners, mean.repeat_interleave(3)) / count
    return values


def without_floaters(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Drop parts of less than SMALLEST_PART of the area."""
    if not len(faces):
        return vertices, faces
    labels = face_components(faces, len(vertices))
    areas = component_areas(vertices, faces, labels)
    return keep_faces(vertices, faces, (areas >= SMALLEST_PART * areas.sum())[labels])
