"""Charts: groups of neighbouring faces that look roughly the same way, so that each can be laid flat.

Clusters grow by parallel merging: in every round each pair of neighbours that are each other's cheapest
partner is joined, until no pair's merged normal cone fits the threshold. A handful of rounds over shrinking
arrays, no per-face loop, hence seconds for a million faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AREA_WEIGHT = 0.1
PERIMETER_WEIGHT = 1e-4
_MAX_ROUNDS = 1000


@dataclass(frozen=True)
class FaceGraph:
    """Faces that share a manifold edge.

    `pairs` [E, 2] are face ids, `lengths` [E] the shared edge's length, `normals` [F, 3] unit (0 for a face
    without area) and `areas` [F].
    """

    pairs: Ints
    lengths: Floats
    normals: Floats
    areas: Floats


def face_graph(vertices: Floats, faces: Ints) -> FaceGraph:
    """Adjacency over edges that belong to exactly two faces; other edges separate charts."""
    corners = vertices[faces]  # [F, 3, 3]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(cross, axis=1)
    normals = cross / np.where(doubled > 0, doubled, 1.0)[:, None]

    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()  # [3F]
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    order = np.argsort(low * (len(vertices) + 1) + high, kind="stable")
    low, high = low[order], high[order]
    owner = order // 3
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    first = np.flatnonzero(opens)
    first = first[np.diff(np.append(first, len(order))) == 2]
    pairs = np.stack([owner[first], owner[first + 1]], axis=1)
    lengths = np.linalg.norm(vertices[low[first]] - vertices[high[first]], axis=1)
    proper = (pairs[:, 0] != pairs[:, 1]) & (low[first] != high[first])
    return FaceGraph(pairs[proper], lengths[proper], normals, 0.5 * doubled)


def smooth_normals(graph: FaceGraph, iterations: int) -> Floats:
    """Face normals averaged with neighbours that look a similar way.

    Noise must not break up charts, nor may sharp edges blur: weights are area times the squared cosine.
    """
    normals = graph.normals
    a, b = graph.pairs.T
    for _ in range(iterations):
        alike = np.clip(np.einsum("ij,ij->i", normals[a], normals[b]), 0.0, 1.0) ** 2  # [E]
        total = normals * graph.areas[:, None]
        for axis in range(3):
            total[:, axis] += np.bincount(a, alike * graph.areas[b] * normals[b, axis], len(normals))
            total[:, axis] += np.bincount(b, alike * graph.areas[a] * normals[a, axis], len(normals))
        length = np.linalg.norm(total, axis=1, keepdims=True)
        normals = np.where(length > 1e-20, total / np.maximum(length, 1e-20), normals)
    return normals


def cluster_faces(
    vertices: Floats,
    faces: Ints,
    cone_half_angle: float,
    *,
    smoothing: int = 0,
    area_weight: float = AREA_WEIGHT,
    perimeter_weight: float = PERIMETER_WEIGHT,
) -> Ints:
    """Chart id of every face [F], 0..charts-1; charts are edge-connected.

    The cost of a merge is the half angle of the merged normal cone (radians) plus `area_weight` times the
    joint area plus `perimeter_weight` * perimeter^2 / area; only merges that cost at most `cone_half_angle`
    happen. `smoothing` rounds of normal averaging come first.
    """
    if not 0 < cone_half_angle <= np.pi:
        raise ArgumentError(f"cone_half_angle must lie in (0, pi], got {cone_half_angle}")
    graph = face_graph(vertices, faces)
    normals = smooth_normals(graph, smoothing)
    return _merge(graph, normals, cone_half_angle, area_weight, perimeter_weight)


def _merge(
    graph: FaceGraph, normals: Floats, limit: float, area_weight: float, perimeter_weight: float
) -> Ints:
    count = len(normals)
    labels = np.arange(count)
    pairs, shared = graph.pairs, graph.lengths
    sums, areas = normals.copy(), graph.areas.copy()
    half = np.zeros(count)
    for _ in range(_MAX_ROUNDS):
        pairs, shared = _join_parallel(pairs, shared, count)
        if not len(pairs):
            break
        cost = _merge_cost(pairs, shared, sums, areas, half, area_weight, perimeter_weight)
        affordable = np.flatnonzero(cost <= limit)
        first, second = _mutual_cheapest(pairs[affordable], cost[affordable], count).T
        if not len(first):
            break
        target = np.arange(count)
        target[second] = first
        kept = target == np.arange(count)
        renumber = np.cumsum(kept) - 1
        sums[first] += sums[second]
        areas[first] += areas[second]
        sums, areas = sums[kept], areas[kept]
        target = renumber[target]
        labels, pairs = target[labels], target[pairs]
        count = len(sums)
        half = _cone_half_angles(labels, normals, sums)
    return labels


def _join_parallel(pairs: Ints, shared: Floats, count: int) -> tuple[Ints, Floats]:
    """Drop pairs inside one cluster and add up the lengths of repeated ones."""
    outer = pairs[:, 0] != pairs[:, 1]
    a, b = pairs[outer].T
    keys = np.minimum(a, b) * count + np.maximum(a, b)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if not len(keys):
        return np.empty((0, 2), dtype=np.int64), np.empty(0)
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    joined = np.stack([keys[starts] // count, keys[starts] % count], axis=1)
    return joined, np.add.reduceat(shared[outer][order], starts)


def _merge_cost(
    pairs: Ints,
    shared: Floats,
    sums: Floats,
    areas: Floats,
    half: Floats,
    area_weight: float,
    perimeter_weight: float,
) -> Floats:
    a, b = pairs.T
    axes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
    between = np.arccos(np.clip(np.einsum("ij,ij->i", axes[a], axes[b]), -1.0, 1.0))
    low = np.minimum(-half[a], between - half[b])
    high = np.maximum(half[a], between + half[b])
    # Only edges to other clusters count, so an open border costs nothing.
    perimeter = np.bincount(a, shared, len(areas)) + np.bincount(b, shared, len(areas))
    area = areas[a] + areas[b]
    border = perimeter[a] + perimeter[b] - 2.0 * shared
    return 0.5 * (high - low) + area_weight * area + perimeter_weight * border**2 / np.maximum(area, 1e-20)


def _mutual_cheapest(pairs: Ints, cost: Floats, count: int) -> Ints:
    """The pairs whose two ends each have no cheaper partner; ties go to the earlier pair."""
    dearest_first = np.argsort(cost, kind="stable")[::-1]
    best = np.full(count, -1)
    best[pairs[dearest_first].ravel()] = np.repeat(dearest_first, 2)  # the last write, the cheapest, stays
    index = np.arange(len(pairs))
    return pairs[(best[pairs[:, 0]] == index) & (best[pairs[:, 1]] == index)]


def _cone_half_angles(labels: Ints, normals: Floats, sums: Floats) -> Floats:
    """Largest angle [K] between a cluster's mean normal and its faces' normals."""
    axes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
    cosine = np.einsum("ij,ij->i", axes[labels], normals)
    lowest = np.ones(len(sums))
    np.minimum.at(lowest, labels, cosine)
    return np.arccos(np.clip(lowest, -1.0, 1.0))


def smooth_borders(graph: FaceGraph, labels: Ints, cone_half_angle: float, rounds: int = 8) -> Ints:
    """Straighten chart borders: a face surrounded on two sides by one other chart joins it.

    Only where the face's normal lies within `cone_half_angle` (and 80 degrees) of that chart's axis. Charts
    stay in one piece: whatever a move cuts off becomes a chart of its own, and pieces of a few faces are
    absorbed again.
    """
    floor = np.cos(min(cone_half_angle, np.radians(80.0)))
    a, b = graph.pairs.T
    face = np.concatenate([a, b])
    other = np.concatenate([b, a])
    for turn in range(rounds):
        charts = int(labels.max()) + 1
        sums = np.stack([np.bincount(labels, graph.normals[:, k], charts) for k in range(3)], axis=1)
        axes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
        foreign = labels[face] != labels[other]
        wanted, votes = np.unique(face[foreign] * charts + labels[other[foreign]], return_counts=True)
        moving, target = wanted[votes >= 2] // charts, wanted[votes >= 2] % charts
        fits = np.einsum("ij,ij->i", graph.normals[moving], axes[target]) >= floor
        # Half of the faces a round: two neighbours that trade places would never settle.
        fits &= (moving * 2654435761 >> 7) % 2 == turn % 2
        labels = labels.copy()
        labels[moving[fits]] = target[fits]
    return connected_charts(graph, labels)


def connected_charts(graph: FaceGraph, labels: Ints) -> Ints:
    """Split charts into edge-connected pieces and number them 0..charts-1."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    inner = graph.pairs[labels[graph.pairs[:, 0]] == labels[graph.pairs[:, 1]]]
    ones = np.ones(len(inner), dtype=bool)
    links = coo_matrix((ones, (inner[:, 0], inner[:, 1])), shape=(len(labels), len(labels)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def absorb_small_charts(graph: FaceGraph, labels: Ints, smallest: int) -> Ints:
    """Give each chart of fewer than `smallest` faces to the neighbour it shares most border with.

    Only to one whose axis lies within 80 degrees of its own.
    """
    for _ in range(4):
        charts = int(labels.max()) + 1
        counts = np.bincount(labels, minlength=charts)
        sums = np.stack([np.bincount(labels, graph.normals[:, k], charts) for k in range(3)], axis=1)
        axes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
        pairs, shared = _join_parallel(labels[graph.pairs], graph.lengths, charts)
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        shared = np.concatenate([shared, shared])
        # Only small into not-small, so that no two charts swap.
        fits = (counts[pairs[:, 0]] < smallest) & (counts[pairs[:, 1]] >= smallest)
        fits &= np.einsum("ij,ij->i", axes[pairs[:, 0]], axes[pairs[:, 1]]) > np.cos(np.radians(80.0))
        if not fits.any():
            break
        order = np.argsort(shared[fits], kind="stable")
        target = np.arange(charts)
        target[pairs[fits][order, 0]] = pairs[fits][order, 1]
        labels = np.unique(target[labels], return_inverse=True)[1].reshape(-1)
    return labels


def split_along(positions: Floats, labels: Ints, chosen: NDArray[np.bool_]) -> Ints:
    """Cut each chosen chart [charts] in two across its longest direction; `positions` [F, k] of faces."""
    charts = int(labels.max()) + 1
    count = np.maximum(np.bincount(labels, minlength=charts), 1)
    size = positions.shape[1]
    centre = np.stack([np.bincount(labels, positions[:, k], charts) / count for k in range(size)], axis=1)
    offset = positions - centre[labels]
    spread = np.empty((charts, size, size))
    for i in range(size):
        for j in range(size):
            spread[:, i, j] = np.bincount(labels, offset[:, i] * offset[:, j], charts)
    axis = np.linalg.eigh(spread)[1][:, :, -1]
    far = np.einsum("ij,ij->i", offset, axis[labels]) > 0
    return np.where(chosen[labels] & far, labels + charts, labels)
