"""The one measure of how sound a triangle mesh is: closed, manifold, outward; by eye and by count.

Every caller (repair's choice, the mesh report, `check`, the benchmarks) measures with this, so that our files
and others' are judged the same way. Vertices at exactly equal positions count as one: UV seams are no
borders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .arrays.edges import EdgeTable, edge_table, next_corner
from .arrays.graph import connected_labels
from .arrays.groups import smallest_members
from .normals import face_crosses
from .repair.cleanup import same_position
from .validation import check_mesh

VIEWS = 24
"""Directions, evenly over the sphere, from which a mesh is looked at."""

PICTURE = 384
"""Pixels a side of each view."""

ZERO_AREA = 1e-7
"""Height over longest edge below which a face counts as one without area."""


@dataclass(frozen=True)
class MeshQuality:
    """Counts, and shares in 0..1. Lengths, area and volume in mesh units.

    `open_edges` have one face, `crowded_edges` three or more, `twisted_edges` two that wind opposite ways;
    `bow_tie_vertices` join two fans or more; `zero_area_faces` are the slivers that shade black; `crumbs` are
    components below a thousandth of the area. `back_pixels`: of the pixels covered over all views, those that
    show a back. `inside_out`: of the area that can be seen, that of faces seen mostly from behind. Both are
    nan when not looked at. `volume` is signed: negative inside out, without meaning for an open mesh.
    """

    faces: int
    vertices: int
    components: int
    crumbs: int
    open_edges: int
    open_length: float
    crowded_edges: int
    twisted_edges: int
    bow_tie_vertices: int
    zero_area_faces: int
    back_pixels: float
    inside_out: float
    area: float
    volume: float
    size: tuple[float, float, float]

    @property
    def closed(self) -> bool:
        """No open edge."""
        return self.faces > 0 and self.open_edges == 0

    @property
    def manifold(self) -> bool:
        """No edge of three or more faces, and no vertex that joins two fans."""
        return self.crowded_edges == 0 and self.bow_tie_vertices == 0

    @property
    def solid(self) -> bool:
        """The border of a body: closed, manifold, wound one way, of positive volume."""
        return self.closed and self.manifold and self.twisted_edges == 0 and self.volume > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what was not looked at is None."""
        values = asdict(self) | {"closed": self.closed, "manifold": self.manifold, "solid": self.solid}
        values["size"] = list(self.size)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def mesh_quality(
    vertices: Tensor, faces: Tensor, *, look: bool = True, views: int = VIEWS, picture: int = PICTURE
) -> MeshQuality:
    """Measure vertices [V, 3], faces [F, 3]; without `look`, the rendered shares are left out (nan).

    Looking takes about 1 s for 100,000 faces on two cores, counting a tenth of that. Raises MeshError.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    welded = weld(vertices)[faces.long()]
    proper = welded[(welded != welded.roll(1, dims=1)).all(dim=1)]
    table = edge_table(proper, len(vertices))
    open_edges = table.edges[table.counts == 1]
    crosses = face_crosses(vertices.double(), faces)
    areas = torch.linalg.vector_norm(crosses, dim=1) / 2
    components, crumbs = _components(vertices, proper, table)
    back_pixels, inside_out = visible_backs(vertices, faces, views, picture) if look else (math.nan, math.nan)
    used = vertices[faces.reshape(-1).long()]
    size = (used.amax(dim=0) - used.amin(dim=0)).tolist() if len(used) else [0.0, 0.0, 0.0]
    return MeshQuality(
        faces=len(faces),
        vertices=len(torch.unique(proper)),
        components=components,
        crumbs=crumbs,
        open_edges=len(open_edges),
        open_length=float((vertices[open_edges[:, 0]] - vertices[open_edges[:, 1]]).norm(dim=1).sum()),
        crowded_edges=int((table.counts > 2).sum()),
        twisted_edges=_twisted(proper, table),
        bow_tie_vertices=_bow_ties(proper, table),
        zero_area_faces=_without_area(vertices, faces, areas),
        back_pixels=back_pixels,
        inside_out=inside_out,
        area=float(areas.sum()),
        volume=signed_volume(vertices, faces),
        size=(size[0], size[1], size[2]),
    )


def weld(vertices: Tensor) -> Tensor:
    """For each vertex [V], the smallest index of a vertex at exactly its position; int64."""
    place = same_position(vertices.float())
    return smallest_members(place, len(vertices))


def visible_backs(
    vertices: Tensor, faces: Tensor, views: int = VIEWS, picture: int = PICTURE
) -> tuple[float, float]:
    """Share of covered pixels that show a back, and share of the visible area seen mostly from behind.

    (0, 0) where nothing is seen.
    """
    crosses = face_crosses(vertices, faces)
    ahead = torch.zeros(len(faces), dtype=torch.int64, device=vertices.device)
    behind = torch.zeros_like(ahead)
    for eye, pixels in _looks(vertices, faces, views, picture):
        away = crosses @ eye < 0
        behind += torch.where(away, pixels, 0)
        ahead += torch.where(away, 0, pixels)
    covered = int(behind.sum() + ahead.sum())
    areas = torch.linalg.vector_norm(crosses, dim=1)
    visible = float(areas[(ahead + behind) > 0].sum())
    backs = float(areas[behind > ahead].sum())
    return int(behind.sum()) / max(covered, 1), backs / visible if visible else 0.0


def visible_faces(vertices: Tensor, faces: Tensor, views: int = VIEWS, picture: int = PICTURE) -> Tensor:
    """Faces [F] bool that a pixel of some view shows."""
    seen = torch.zeros(len(faces), dtype=torch.bool, device=vertices.device)
    for _, pixels in _looks(vertices, faces, views, picture):
        seen |= pixels > 0
    return seen


def _looks(vertices: Tensor, faces: Tensor, views: int, picture: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The direction of each view's eye, and how many pixels of it show each face [F], from either side.

    Orthographic views from directions evenly over the sphere.
    """
    from ..raster import rasterize

    if not len(faces):
        return
    points = _in_unit_ball(vertices, faces)
    for eye in directions(views).to(points):
        right, up = _screen_axes(eye)
        depth = -(points @ eye)
        clip = torch.stack([points @ right, points @ up, depth, torch.ones_like(depth)], dim=1)
        seen = rasterize(clip, faces, (picture, picture)).face_id
        yield eye, torch.bincount(seen[seen >= 0].long(), minlength=len(faces))


def directions(count: int) -> Tensor:
    """Unit vectors [count, 3], evenly over the sphere (a Fibonacci lattice)."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * k / count
    turn = math.pi * (1 + math.sqrt(5)) * k
    r = (1 - z * z).sqrt()
    return torch.stack([r * turn.cos(), r * turn.sin(), z], dim=1).float()


def _in_unit_ball(vertices: Tensor, faces: Tensor) -> Tensor:
    """Vertices moved and scaled so that all that faces use fill the unit ball."""
    used = vertices[faces.reshape(-1).long()]
    centre = (used.amax(dim=0) + used.amin(dim=0)) / 2
    radius = max(float((used - centre).norm(dim=1).max()) * 1.01, 1e-30)
    return (vertices - centre) / radius


def _screen_axes(eye: Tensor) -> tuple[Tensor, Tensor]:
    """Right and up of a screen that faces `eye`."""
    helper = torch.zeros_like(eye)
    helper[eye.abs().argmin()] = 1.0
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, eye), dim=0)
    return right, torch.linalg.cross(eye, right)


def _components(vertices: Tensor, faces: Tensor, table: EdgeTable) -> tuple[int, int]:
    """Parts joined through edges of any kind, and those of less than a thousandth of the area."""
    if not len(faces):
        return 0, 0
    labels = connected_labels(len(vertices), table.edges)[faces[:, 0]]
    _, part = torch.unique(labels, return_inverse=True)
    areas = torch.linalg.vector_norm(face_crosses(vertices.double(), faces), dim=1)
    total = torch.zeros(int(part.max()) + 1, dtype=torch.float64, device=faces.device)
    total.index_add_(0, part, areas)
    return len(total), int((total < 1e-3 * total.sum()).sum())


def _twisted(faces: Tensor, table: EdgeTable) -> int:
    """Edges of two faces that both run along them the same way."""
    first, second = table.manifold_pairs.unbind(dim=1)
    starts = faces.reshape(-1)
    return int((starts[first] == starts[second]).sum())


def _bow_ties(faces: Tensor, table: EdgeTable) -> int:
    """Vertices whose faces form more than one fan; those on crowded edges are not counted again."""
    if not len(faces):
        return 0
    corner_vertex = faces.reshape(-1)
    first, second = table.manifold_pairs.unbind(dim=1)
    first_end, second_end = next_corner(first), next_corner(second)
    same_way = corner_vertex[first] == corner_vertex[second]
    joined = torch.cat(
        [
            torch.stack([first, torch.where(same_way, second, second_end)], dim=1),
            torch.stack([first_end, torch.where(same_way, second_end, second)], dim=1),
        ]
    )
    fans = torch.unique(torch.stack([corner_vertex, connected_labels(len(corner_vertex), joined)]), dim=1)[0]
    vertices, count = torch.unique(fans, return_counts=True)
    crowded = table.edges[table.counts > 2].reshape(-1)
    return int((~torch.isin(vertices[count > 1], crowded)).sum())


def _without_area(vertices: Tensor, faces: Tensor, areas: Tensor) -> int:
    corners = vertices.double()[faces.long()]
    longest = (corners - corners.roll(1, dims=1)).square().sum(dim=2).amax(dim=1)
    return int((2 * areas <= ZERO_AREA * longest).sum())


def signed_volume(vertices: Tensor, faces: Tensor) -> float:
    """What a closed surface encloses, negative inside out; about the middle of its box, where rounding
    matters least."""
    if not len(faces):
        return 0.0
    points = vertices.double()
    crosses = face_crosses(points, faces)
    middle = (points.amax(dim=0) + points.amin(dim=0)) / 2
    return float(((points[faces[:, 0].long()] - middle) * crosses).sum() / 6)
