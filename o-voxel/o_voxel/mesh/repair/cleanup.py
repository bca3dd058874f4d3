"""Repairs: duplicate, degenerate and non-manifold faces, unused and coincident vertices.

Every function takes vertices [V, 3] and faces [F, 3] and returns new ones; those that remove faces also
drop the vertices that nothing uses any more. An empty mesh passes through. All raise MeshError on invalid
arrays.
"""

from __future__ import annotations

import numpy as np
import torch

from ..arrays.edges import edge_table, next_corner
from ..arrays.graph import connected_labels
from ..arrays.groups import smallest_members
from ..normals import face_crosses
from ..validation import check_mesh

Arrays = tuple[torch.Tensor, torch.Tensor]


def remove_unreferenced_vertices(vertices: torch.Tensor, faces: torch.Tensor) -> Arrays:
    """Drop vertices that no face uses; the order of the rest stays."""
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    used = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
    used[faces.reshape(-1).long()] = True
    if bool(used.all()):
        return vertices, faces
    rank = (used.cumsum(0) - 1).int()
    return vertices[used], rank[faces.long()]


def keep_faces(vertices: torch.Tensor, faces: torch.Tensor, keep: torch.Tensor) -> Arrays:
    """Keep the faces marked in `keep` [F] bool, and the vertices that they use."""
    if bool(keep.all()):
        return remove_unreferenced_vertices(vertices, faces)
    return remove_unreferenced_vertices(vertices, faces[keep])


def remove_duplicate_faces(vertices: torch.Tensor, faces: torch.Tensor) -> Arrays:
    """Of faces with the same three vertices, in any order, keep the first with its winding."""
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    return keep_faces(vertices, faces, ~_repeats(faces.sort(dim=1).values))


def _repeats(rows: torch.Tensor) -> torch.Tensor:
    """Mask [N] of integer rows [N, 3] that equal an earlier row."""
    repeats = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    if len(rows) < 2:
        return repeats
    ordered = rows[(order := row_order(rows))]  # equal rows keep their order
    repeats[order[1:]] = (ordered[1:] == ordered[:-1]).all(dim=1)
    return repeats


def row_order(rows: torch.Tensor) -> torch.Tensor:
    """Stable permutation [N] that sorts rows [N, 3] by columns 0, 1, 2, without leaving their device."""
    if rows.device.type == "cpu":
        columns = rows.numpy()
        return torch.from_numpy(np.lexsort((columns[:, 2], columns[:, 1], columns[:, 0])))
    return row_order_by_sorts(rows)


def row_order_by_sorts(rows: torch.Tensor) -> torch.Tensor:
    """`row_order` by stable sorts of one column after another; suits GPUs."""
    order = torch.argsort(rows[:, 2], stable=True)
    for column in (1, 0):
        order = order[torch.argsort(rows[order, column], stable=True)]
    return order


def remove_degenerate_faces(
    vertices: torch.Tensor, faces: torch.Tensor, absolute: float = 1e-24, relative: float = 1e-12
) -> Arrays:
    """Drop faces with two equal indices or an area below min(relative * longest edge squared, absolute)."""
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    long = faces.long()
    corners = vertices.double()[long]  # [F, 3, 3]; float32 could not hold areas this small
    area = torch.linalg.vector_norm(face_crosses(vertices.double(), faces), dim=1) / 2
    longest = (corners - corners.roll(-1, dims=1)).square().sum(dim=2).amax(dim=1)
    repeated = (long == long.roll(-1, dims=1)).any(dim=1)
    return keep_faces(vertices, faces, ~(repeated | (area < (relative * longest).clamp(max=absolute))))


def repair_non_manifold_edges(vertices: torch.Tensor, faces: torch.Tensor) -> Arrays:
    """Cut the mesh apart along every edge of three or more faces, and split vertices where fans only touch.

    Nothing moves and no face goes: corners that manifold edges connect share one vertex, all others get their
    own copy, numbered by smallest corner. Cuts are new boundaries.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(faces) == 0:
        return remove_unreferenced_vertices(vertices, faces)
    pairs = edge_table(
        faces, len(vertices)
    ).manifold_pairs  # half-edge ids are also ids of their first corner
    corner_vertex = faces.reshape(-1).long()
    first, second = pairs.unbind(dim=1)
    first_end, second_end = next_corner(first), next_corner(second)
    opposite = corner_vertex[first] == corner_vertex[second_end]
    joined = torch.cat(
        [
            torch.stack([first, torch.where(opposite, second_end, second)], dim=1),
            torch.stack([first_end, torch.where(opposite, second, second_end)], dim=1),
        ]
    )
    labels = connected_labels(3 * len(faces), joined)
    source = torch.empty(int(labels.max()) + 1, dtype=torch.int64, device=faces.device)
    source[labels] = corner_vertex
    return vertices[source], labels.reshape(-1, 3).int()


def remove_non_manifold_faces(vertices: torch.Tensor, faces: torch.Tensor) -> Arrays:
    """Drop every face that has an edge shared by three or more faces. Leaves holes."""
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    table = edge_table(faces, len(vertices))
    crowded = (table.counts > 2).repeat_interleave(table.counts)
    keep = torch.ones(len(faces), dtype=torch.bool, device=faces.device)
    keep[torch.div(table.order[crowded], 3, rounding_mode="floor")] = False
    return keep_faces(vertices, faces, keep)


def weld_vertices(vertices: torch.Tensor, faces: torch.Tensor, tolerance: float = 0.0) -> Arrays:
    """Merge vertices at the same place, or, with a tolerance, in chains of steps no longer than it.

    Each group keeps the position of its first vertex. Faces that lose a corner by this are dropped, unused
    vertices too.
    """
    vertices, faces = check_mesh(vertices, faces, allow_empty=True)
    if len(vertices) == 0:
        return vertices, faces
    if tolerance > 0:
        from scipy.spatial import cKDTree

        close = cKDTree(vertices.cpu().numpy()).query_pairs(tolerance, output_type="ndarray")
        labels = connected_labels(len(vertices), torch.from_numpy(close).long().to(vertices.device))
    else:
        labels = same_position(vertices)
    merged = smallest_members(labels, int(labels.max()) + 1)[faces.long()].int()
    collapsed = (merged == merged.roll(-1, dims=1)).any(dim=1)
    return keep_faces(vertices, merged, ~collapsed)


def same_position(vertices: torch.Tensor) -> torch.Tensor:
    """Label [V] that vertices share exactly when their coordinates are equal (0 and -0 are)."""
    places = vertices + 0.0
    order = row_order(places)
    ordered = places[order]
    new = torch.zeros(len(places), dtype=torch.int64, device=places.device)
    new[1:] = (ordered[1:] != ordered[:-1]).any(dim=1)
    return torch.empty_like(new).index_copy_(0, order, new.cumsum(0))
