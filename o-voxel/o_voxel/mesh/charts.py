"""Charts: groups of neighbouring faces that look roughly the same way, so that each can be laid flat.

Clusters grow by parallel merging: in every round each pair of neighbours that are each other's cheapest partner
is joined, until no pair's merged normal cone fits the threshold. A handful of rounds over shrinking arrays, no
per-face loop, hence seconds for a million faces.
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

    `pairs` [E, 2] are face ids, `lengths` [E] the shared edge's length, `normals` [F, 3] unit (0 for a face without
    area) and `areas` [F].
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
    """Face normals averaged over neighbours, area weighted: noise of the surface must not break up its charts."""
    normals = graph.normals
    a, b = graph.pairs.T
    for _ in range(iterations):
        weighted = normals * graph.areas[:, None]
        total = weighted.copy()
        for axis in range(3):
            total[:, axis] += np.bincount(a, weighted[b, axis], len(normals))
            total[:, axis] += np.bincount(b, weighted[a, axis], len(normals))
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

    The cost of a merge is the half angle of the merged normal cone (radians) plus `area_weight` times the joint area
    plus `perimeter_weight` * perimeter^2 / area; only merges that cost at most `cone_half_angle` happen. `smoothing`
    rounds of normal averaging come first.
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
    low, high = pairs[outer].min(axis=1, initial=count), pairs[outer].max(axis=1, initial=-1)
    keys = low * count + high
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
