"""Consistent winding inside components, and normals that point outwards."""

from __future__ import annotations

import numpy as np
import torch

from .components import label_graph
from .edges import edge_table
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
    return vertices, _outward(vertices, faces, label_graph(len(faces), pairs))


def _flipped(faces: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    return torch.where(flips[:, None], faces[:, [0, 2, 1]], faces)


def _disagreements(faces: torch.Tensor, vertex_count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces to flip [F] bool and component labels [F], from a breadth-first tree over manifold edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    device = faces.device
    count = len(faces)
    halves = edge_table(faces, vertex_count).manifold_pairs
    starts = faces.reshape(-1).long()
    against = (starts[halves[:, 0]] == starts[halves[:, 1]]).cpu().numpy()  # both run the same way
    neighbours = torch.div(halves, 3, rounding_mode="floor")
    labels = label_graph(count, neighbours)
    pairs = neighbours.cpu().numpy()
    roots = np.unique(labels.cpu().numpy(), return_index=True)[1]
    # A virtual face `count` joins the smallest face of every component, so that one search visits all.
    a = np.concatenate([pairs[:, 0], np.full(len(roots), count)])
    b = np.concatenate([pairs[:, 1], roots])
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), (count + 1, count + 1)).tocsr()
    _, parent = breadth_first_order(graph, count, directed=False)
    parent[count] = count

    low, high = np.minimum(pairs[:, 0], pairs[:, 1]), np.maximum(pairs[:, 0], pairs[:, 1])
    keys = low.astype(np.int64) * (count + 1) + high
    order = np.argsort(keys, kind="stable")
    child = np.arange(count + 1)
    tree = np.minimum(child, parent).astype(np.int64) * (count + 1) + np.maximum(child, parent)
    odd = np.zeros(count + 1, dtype=bool)
    inner = parent < count
    if len(keys):
        odd[inner] = against[order[np.searchsorted(keys[order], tree[inner])]]
    # Pointer jumping: after k rounds a face knows its parity relative to its 2^k-th ancestor.
    while bool((parent != count).any()):
        odd ^= odd[parent]
        parent = parent[parent]
    return torch.from_numpy(odd[:count]).to(device), labels


def _outward(vertices: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    from .bvh import TriangleBVH

    count = int(labels.max()) + 1
    areas = face_areas(vertices, faces)
    order = torch.argsort(areas, descending=True, stable=True)
    order = order[torch.argsort(labels[order], stable=True)]  # by component, large faces first
    sizes = torch.bincount(labels, minlength=count)
    rank = torch.arange(len(faces), device=faces.device) - (sizes.cumsum(0) - sizes)[labels[order]]
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
    size = torch.bincount(labels, minlength=count)[:, None]
    mean = corners.new_zeros((count, 3)).index_add_(0, labels, corners.mean(dim=1)) / size
    a, b, c = (corners - mean[labels][:, None]).unbind(dim=1)
    signed = (a * torch.linalg.cross(b, c)).sum(dim=1)
    return signed.new_zeros(count).index_add_(0, labels, signed)
