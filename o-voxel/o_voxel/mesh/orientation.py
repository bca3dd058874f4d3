"""Consistent winding inside components, and normals that point outwards."""

from __future__ import annotations

import torch

from .edges import edge_table
from .graph import connected_labels
from .groups import compact, group_lowest, group_sizes, group_sums, marked, smallest_members, unrolled
from .normals import face_areas, face_normals
from .validation import check_mesh

SAMPLES = 16
"""Largest faces of a component that vote on which side is outside."""


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

    Rays leave the largest faces of each component along their normals; an odd number of surfaces ahead
    means that the normal points inwards. So the wall of a void inside a body turns towards the void.
    Expects consistent components; those that the votes leave undecided are judged by the sign of their
    volume. Raises MeshError.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) == 0:
        return vertices, faces
    pairs = torch.div(edge_table(faces, len(vertices)).manifold_pairs, 3, rounding_mode="floor")
    return vertices, _outward(vertices, faces, connected_labels(len(faces), pairs))


def _flipped(faces: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    return torch.where(flips[:, None], faces[:, [0, 2, 1]], faces)


def _disagreements(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces to flip [F] bool, and component labels [F] numbered by smallest face."""
    halves = edge_table(faces, vertex_count).manifold_pairs
    starts = faces.reshape(-1).long()
    against = starts[halves[:, 0]] == starts[halves[:, 1]]  # both run the same way
    return spanning_parities(len(faces), torch.div(halves, 3, rounding_mode="floor"), against)


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
    while len(outer := marked(a != b)):
        a, b, odd = a.index_select(0, outer), b.index_select(0, outer), odd.index_select(0, outer)
        root, turn = _joined(a, b, odd, clusters)
        rank, clusters = compact(root == torch.arange(clusters, device=root.device))
        levels.append((rank.index_select(0, root), turn))
        odd = odd ^ turn.index_select(0, a) ^ turn.index_select(0, b)
        a, b = levels[-1][0].index_select(0, a), levels[-1][0].index_select(0, b)
    label = torch.arange(clusters, device=pairs.device)
    parity = torch.zeros(clusters, dtype=torch.bool, device=pairs.device)
    for joins, turn in reversed(levels):
        label, parity = label.index_select(0, joins), turn ^ parity.index_select(0, joins)
    smallest = smallest_members(label, clusters)
    number, _ = compact(smallest == torch.arange(count, device=pairs.device))
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
    from .bvh import TriangleBVH

    count = int(labels.max()) + 1
    areas = face_areas(vertices, faces)
    order = torch.argsort(areas, descending=True, stable=True)
    order = order[torch.argsort(labels[order], stable=True)]  # by component, large faces first
    _, rank = unrolled(group_sizes(labels, count))
    voters = order[(rank < SAMPLES) & (areas[order] > 0)]
    normals = face_normals(vertices, faces)[voters]
    span = float((vertices.amax(dim=0) - vertices.amin(dim=0)).norm())
    centres = vertices[faces[voters].long()].mean(dim=1)
    tree = TriangleBVH(vertices, faces)
    ahead = tree.crossings(centres + normals * (1e-6 * span), normals)
    vote = areas[voters] * torch.where(ahead % 2 == 0, 1.0, -1.0)
    votes = torch.zeros(count, device=faces.device).index_add_(0, labels[voters], vote)
    volume = _volumes(vertices, faces, labels, count)
    undecided = votes.abs() <= 0.2 * votes.new_zeros(count).index_add_(0, labels[voters], vote.abs())
    return _flipped(faces, torch.where(undecided, volume < 0, votes < 0)[labels])


def _volumes(vertices: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Six times the signed volume of each component about its own mean, float64 [count]."""
    corners = vertices.double()[faces.long()]  # [F, 3, 3]
    sums = [group_sums(labels, along, count) for along in corners.mean(dim=1).unbind(dim=1)]
    mean = torch.stack(sums, dim=1) / group_sizes(labels, count)[:, None]
    a, b, c = (corners - mean[labels][:, None]).unbind(dim=1)
    return group_sums(labels, (a * torch.linalg.cross(b, c)).sum(dim=1), count)
