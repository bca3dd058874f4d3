"""Consistent winding inside components, and normals that point outwards."""

from __future__ import annotations

import torch

from ..arrays.edges import EdgeTable, edge_table
from ..arrays.graph import connected_labels
from ..arrays.groups import group_lowest, group_sizes, group_sums, nonzero_1d, rank_of_true, smallest_members
from ..normals import face_areas, face_normals
from ..quality import directions
from ..validation import check_mesh

SAMPLES = 16
"""Faces of a component that vote on which side is outside."""

DIRECTIONS = 16
"""In which each of them looks for the outside."""

UNDECIDED = 0.2
"""Share of the votes by which one side must lead."""


def unify_orientations(
    vertices: torch.Tensor, faces: torch.Tensor, *, outward: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip faces (swap corners 1 and 2) until neighbours across manifold edges agree.

    In each component the face with the smallest index keeps its winding; with `outward`, see
    `orient_outward`. A one-sided (non-orientable) component stays inconsistent along some seam. Raises
    MeshError.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) == 0:
        return vertices, faces
    flips, labels = _disagreements(faces, len(vertices))
    faces = _flipped(faces, flips)
    return (vertices, _outward(vertices, faces, labels)) if outward else (vertices, faces)


def orient_outward(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip whole components so that their normals point to the outside.

    Outside is the side from which more can be seen from afar: rays leave faces spread over each component
    in all directions, and those that meet nothing vote for their side. A component that is hidden or seen
    from both sides alike is judged by the parity of surfaces along its normals, so that the wall of a void
    inside a body turns towards the void; after that by the sign of its volume. Expects consistent
    components. Raises MeshError.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) == 0:
        return vertices, faces
    pairs = torch.div(edge_table(faces, len(vertices)).manifold_pairs, 3, rounding_mode="floor")
    return vertices, _outward(vertices, faces, connected_labels(len(faces), pairs))


def is_orientable(faces: torch.Tensor, vertex_count: int, table: EdgeTable | None = None) -> bool:
    """Whether faces [F, 3] can wind so that all neighbours across manifold edges agree; `table`: their edges,
    where they are known."""
    pairs, against = _against(faces, table or edge_table(faces, vertex_count))
    if not bool(against.any()):
        return True
    flips, _ = spanning_parities(len(faces), pairs, against)
    first, second = (flips.index_select(0, side) for side in pairs.T.contiguous())
    return not bool((against ^ first ^ second).any())


def _flipped(faces: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    return torch.where(flips[:, None], faces[:, [0, 2, 1]], faces)


def _disagreements(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces to flip [F] bool, and component labels [F] numbered by smallest face."""
    pairs, against = _against(faces, edge_table(faces, vertex_count))
    return spanning_parities(len(faces), pairs, against)


def _against(faces: torch.Tensor, table: EdgeTable) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces [P, 2] across each manifold edge, and whether [P] both run along it the same way."""
    halves = table.manifold_pairs
    starts = faces.reshape(-1).long()
    return torch.div(halves, 3, rounding_mode="floor"), starts[halves[:, 0]] == starts[halves[:, 1]]


def spanning_parities(
    count: int, pairs: torch.Tensor, odd_pairs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parity [count] bool of each node to its component's smallest, and component labels [count].

    A node's parity counts the pairs [P, 2] marked in `odd_pairs` [P] on its way through a spanning forest.
    Borůvka's rounds: every cluster joins the one across the first pair that leaves it, all at once, until no
    pair leaves a cluster.
    """
    (a, b), odd, clusters = pairs.long().unbind(dim=1), odd_pairs, count
    levels: list[tuple[torch.Tensor, torch.Tensor]] = []
    while len(outer := nonzero_1d(a != b)):
        a, b, odd = a.index_select(0, outer), b.index_select(0, outer), odd.index_select(0, outer)
        root, turn = _joined(a, b, odd, clusters)
        rank, clusters = rank_of_true(root == torch.arange(clusters, device=root.device))
        levels.append((rank.index_select(0, root), turn))
        odd = odd ^ turn.index_select(0, a) ^ turn.index_select(0, b)
        a, b = levels[-1][0].index_select(0, a), levels[-1][0].index_select(0, b)
    label = torch.arange(clusters, device=pairs.device)
    parity = torch.zeros(clusters, dtype=torch.bool, device=pairs.device)
    for joins, turn in reversed(levels):
        label, parity = label.index_select(0, joins), turn ^ parity.index_select(0, joins)
    smallest = smallest_members(label, clusters)
    number, _ = rank_of_true(smallest == torch.arange(count, device=pairs.device))
    return parity ^ parity.index_select(0, smallest), number.index_select(0, smallest)


def _joined(
    a: torch.Tensor, b: torch.Tensor, odd: torch.Tensor, clusters: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Root [clusters] above each cluster once all have joined over their first pair, and parity to it."""
    own = torch.arange(clusters, device=a.device)
    place, none = torch.arange(len(a), device=a.device), len(a)
    first = group_lowest(b, place, group_lowest(a, place, own.new_full((clusters,), none)))
    pair = first.clamp(max=none - 1)
    other = a.index_select(0, pair) + b.index_select(0, pair) - own
    other = torch.where(first < none, other, own)
    # Pairs have an order, so the only circle of choices is that of two clusters that chose the same pair.
    stays = (first.index_select(0, other) == first) & (own <= other)
    parent = torch.where(stays, own, other)
    turn = odd.index_select(0, pair) & ~stays
    while True:
        above = parent.index_select(0, parent)
        if torch.equal(above, parent):
            return parent, turn
        turn = turn ^ turn.index_select(0, parent)
        parent = above


def _outward(vertices: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from ..spatial.bvh import TriangleBVH

    count = int(labels.max()) + 1
    voters = _spread_over_area(face_areas(vertices, faces).double(), labels, count)
    component = labels[voters]
    normals = face_normals(vertices, faces)[voters]
    span = float((vertices.amax(dim=0) - vertices.amin(dim=0)).norm())
    centres = vertices[faces[voters].long()].mean(dim=1)
    tree = TriangleBVH(vertices, faces)

    rays = directions(DIRECTIONS).to(vertices)
    side = normals @ rays.T  # [voters, DIRECTIONS]; faces seen edge-on count for less
    origins = centres[:, None] + normals[:, None] * (1e-6 * span * side.sign())[:, :, None]
    hit = tree.cast(origins.reshape(-1, 3), rays.repeat(len(voters), 1)).face
    seen = torch.where(hit.view_as(side) < 0, side, 0.0)
    votes, sight = (group_sums(component, part.sum(dim=1), count) for part in (seen, seen.abs()))
    unseen = votes.abs() <= UNDECIDED * sight

    ahead = tree.crossings(centres + normals * (1e-6 * span), normals)
    parity = group_sums(component, torch.where(ahead % 2 == 0, 1.0, -1.0), count)
    undecided = unseen & (parity.abs() <= UNDECIDED * group_sizes(component, count))
    volume = _volumes(vertices, faces, labels, count)
    inwards = torch.where(undecided, volume < 0, torch.where(unseen, parity < 0, votes < 0))
    return _flipped(faces, inwards[labels])


def _spread_over_area(areas: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """SAMPLES faces of each component of any area, evenly over its area; a large face may come again."""
    order = torch.argsort(labels, stable=True)
    reached = areas[order].cumsum(0)
    own = group_sums(labels, areas, count)
    ends = reached[group_sizes(labels, count).cumsum(0) - 1]
    step = (torch.arange(SAMPLES, device=areas.device) + 0.5) / SAMPLES
    places = ((ends - own)[:, None] + own[:, None] * step)[own > 0].reshape(-1)
    voters = order[torch.searchsorted(reached, places).clamp(max=len(order) - 1)]
    return voters[areas[voters] > 0]


def _volumes(vertices: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Six times the signed volume of each component about its own mean, float64 [count]."""
    corners = vertices.double()[faces.long()]  # [F, 3, 3]
    sums = [group_sums(labels, along, count) for along in corners.mean(dim=1).unbind(dim=1)]
    mean = torch.stack(sums, dim=1) / group_sizes(labels, count)[:, None]
    a, b, c = (corners - mean[labels][:, None]).unbind(dim=1)
    return group_sums(labels, (a * torch.linalg.cross(b, c)).sum(dim=1), count)
