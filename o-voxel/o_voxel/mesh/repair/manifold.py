"""Making a nearly manifold mesh manifold: what collapses leave behind, mended where it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arrays.edges import EdgeTable, edge_table, next_corner
from ..arrays.graph import connected_labels
from ..arrays.groups import nonzero_1d
from ..quality import weld
from ..validation import check_mesh
from .cleanup import remove_unreferenced_vertices
from .holes import fill_holes

APART = 0.05
"""How far copies of a vertex that joined several fans move towards the middle of their own."""

GENTLE = 2
"""Rounds in which no sound face goes."""

ROUNDS = 8

Mesh = tuple[Tensor, Tensor]


def make_manifold(vertices: Tensor, faces: Tensor) -> Mesh:
    """A closed mesh in which every edge has two faces and every vertex one fan, also after welding.

    Expects a consistently wound mesh, closed but for little: pairs of faces folded onto each other go, sheets
    that touch along an edge or at a vertex come apart there, and what is then open is filled. Raises
    MeshError.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    for number in range(ROUNDS):
        faces = _without_folds(weld(vertices)[faces.long()])
        if not len(faces):
            break
        table = edge_table(faces, len(vertices))
        if number >= GENTLE:  # twisted or torn: what lies around goes, and the hole is filled
            faces = faces[~_bad_vertices(faces, len(vertices), table)[faces].any(dim=1)]
            table = edge_table(faces, len(vertices))
        vertices, faces, parted = _parted(vertices, faces, table)
        if not parted and bool((table.counts == 2).all()):
            break
        vertices, faces = fill_holes(vertices, faces.int(), math.inf)
    return remove_unreferenced_vertices(vertices, faces.int())


def _bad_vertices(faces: Tensor, count: int, table: EdgeTable) -> Tensor:
    """Mask [count] of the ends of edges that do not join two faces of one winding."""
    bad = torch.zeros(count, dtype=torch.bool, device=faces.device)
    bad[table.edges[table.counts != 2].reshape(-1)] = True
    first, second = table.manifold_pairs.unbind(dim=1)
    corner = faces.reshape(-1)
    twisted = corner[first] == corner[second]
    bad[corner[first[twisted]]] = True
    bad[corner[next_corner(first[twisted])]] = True
    return bad


def _without_folds(faces: Tensor) -> Tensor:
    """Drop faces that name a vertex twice; of faces on the same three vertices, those that face each other
    cancel, and of those that are left one stays."""
    faces = faces[(faces != faces.roll(1, dims=1)).all(dim=1)]
    _, place, uses = torch.unique(faces.sort(dim=1).values, dim=0, return_inverse=True, return_counts=True)
    if len(uses) == len(faces):
        return faces
    even = (faces < faces.roll(-1, dims=1)).sum(dim=1) == 2  # winds as its sorted vertices do
    turn = torch.where(even, 1, -1)
    surplus = torch.zeros_like(uses).index_add_(0, place, turn)
    wanted = surplus[place] * turn > 0
    index = torch.arange(len(faces), device=faces.device)
    lowest = torch.full_like(uses, len(faces)).scatter_reduce(0, place[wanted], index[wanted], "amin")
    return faces[wanted & (lowest[place] == index)]


def _parted(vertices: Tensor, faces: Tensor, table: EdgeTable) -> tuple[Tensor, Tensor, bool]:
    """Give each fan of faces a vertex of its own; whether any vertex had to be copied."""
    pairs = table.manifold_pairs
    corner_vertex = faces.reshape(-1)
    pairs = pairs[corner_vertex[pairs[:, 0]] != corner_vertex[pairs[:, 1]]]
    around = _pairs_around(vertices, faces, table)
    pairs = torch.cat([pairs, around])
    first, second = pairs.unbind(dim=1)
    first_end, second_end = next_corner(first), next_corner(second)
    joined = torch.cat([torch.stack([first, second_end], dim=1), torch.stack([first_end, second], dim=1)])
    label = connected_labels(len(corner_vertex), joined)
    source = torch.empty(int(label.max()) + 1, dtype=torch.int64, device=faces.device)
    source[label] = corner_vertex
    copied = torch.bincount(source, minlength=len(vertices))[source] > 1
    faces = label.reshape(-1, 3)
    points = vertices[source]
    if not bool(copied.any()):
        points, faces = _double_edges_split(points, faces, around)
        return points, faces, len(around) > 0
    touching = nonzero_1d(copied[faces].any(dim=1))
    corners = faces[touching].reshape(-1)
    middles = points[faces[touching]].mean(dim=1).repeat_interleave(3, dim=0)
    total = torch.zeros_like(points).index_add_(0, corners, middles)
    count = torch.bincount(corners, minlength=len(points)).clamp(min=1)[:, None]
    moved = torch.lerp(points, total / count, APART)
    points, faces = _double_edges_split(torch.where(copied[:, None], moved, points), faces, around)
    return points, faces, True


def _double_edges_split(points: Tensor, faces: Tensor, pairs: Tensor) -> Mesh:
    """Give half-edge pairs [K, 2] that run between the same two vertices a vertex of their own in the middle.

    Of pairs that share a face, one is split; the others wait for the next round.
    """
    corner = faces.reshape(-1)
    ends = torch.stack([corner[pairs[:, 0]], corner[next_corner(pairs[:, 0])]], dim=1).sort(dim=1).values
    _, place, uses = torch.unique(ends, dim=0, return_inverse=True, return_counts=True)
    taken: set[int] = set()
    halves: list[list[int]] = []
    for first, second in pairs[uses[place] > 1].tolist() if len(pairs) else []:
        if not taken & {first // 3, second // 3}:
            taken |= {first // 3, second // 3}
            halves.append([first, second])
    if not halves:
        return points, faces
    split = torch.tensor(halves, device=faces.device)  # [K, 2]
    tip = corner[next_corner(next_corner(split))]
    start, end = corner[split], corner[next_corner(split)]
    middle = points[torch.cat([start, end], dim=1)].mean(dim=1)
    middle = torch.lerp(middle, points[tip].mean(dim=1), 2 * APART)
    new = (len(points) + torch.arange(len(split), device=faces.device))[:, None].expand(-1, 2)
    faces = faces.clone()
    faces[torch.div(split, 3, rounding_mode="floor")] = torch.stack([start, new, tip], dim=2)
    faces = torch.cat([faces, torch.stack([new, end, tip], dim=2).reshape(-1, 3)])
    return torch.cat([points, middle]), faces


def _pairs_around(vertices: Tensor, faces: Tensor, table: EdgeTable) -> Tensor:
    """Half-edge pairs [K, 2] of edges with four faces and more, so that each pair bounds solid between."""
    crowded = nonzero_1d(table.counts > 2)
    found: list[list[int]] = []
    corner_vertex = faces.reshape(-1)
    for edge in crowded.tolist():
        start, count = int(table.starts[edge]), int(table.counts[edge])
        halves = table.order[start : start + count]
        a, b = table.edges[edge]
        axis = torch.nn.functional.normalize(vertices[b] - vertices[a], dim=0)
        aside = vertices[corner_vertex[next_corner(next_corner(halves))]] - vertices[a]
        across = aside - (aside @ axis)[:, None] * axis
        right = torch.nn.functional.normalize(across[0], dim=0)
        up = torch.linalg.cross(axis, right)
        angle = torch.atan2(across @ up, across @ right)
        order = torch.argsort(angle, stable=True)
        ahead = (corner_vertex[halves[order]] == a).tolist()
        ring = halves[order].tolist()
        # A face along the edge has solid on its clockwise side, one against it on the other.
        waiting = list(range(count))
        while True:
            for k, here in enumerate(waiting):
                after = waiting[(k + 1) % len(waiting)]
                if here != after and not ahead[here] and ahead[after]:
                    found.append([ring[here], ring[after]])
                    waiting = [w for w in waiting if w not in (here, after)]
                    break
            else:
                break
            if not waiting:
                break
    return torch.tensor(found, dtype=torch.int64, device=faces.device).reshape(-1, 2)
