"""Charts: groups of neighbouring faces that look roughly the same way, so that each can be laid flat.

Clusters grow by parallel merging: in every round each pair of neighbours that are each other's cheapest
partner is joined, until no pair's merged normal cone fits the threshold. Some fifty rounds over shrinking
arrays, no per-face loop, and two or three transfers a round from a GPU.

Vertices are [3, V] float64 and faces [3, F] int64 (see `vectors`), on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ArgumentError
from ..arrays.graph import connected_labels
from ..arrays.groups import (
    argsort_deterministic,
    group_lowest,
    group_sizes,
    group_sums,
    nonzero_1d,
    rank_of_true,
    run_starts,
)
from ..arrays.vectors import dot, gather_columns, length, triangle_cross, unit

AREA_WEIGHT = 0.1
PERIMETER_WEIGHT = 1e-4
_STEEPEST = math.radians(80.0)  # between a face's normal and its chart's axis, or between two axes
_NOBODY = torch.iinfo(torch.int64).max
_ROW = 2**32 - 1


@dataclass(frozen=True)
class FaceGraph:
    """Faces that share a manifold edge.

    `pairs` [2, E] are face ids, `lengths` [E] the shared edge's length, `neighbours` [3, F] the faces across
    each edge (itself where there is none), `normals` [3, F] unit (0 for a face without area), `areas` [F].
    """

    pairs: Tensor
    lengths: Tensor
    neighbours: Tensor
    normals: Tensor
    areas: Tensor


def face_graph(vertices: Tensor, faces: Tensor) -> FaceGraph:
    """Adjacency over edges that belong to exactly two faces; other edges separate charts."""
    normals = triangle_cross(vertices, faces)
    doubled = length(normals)
    count = faces.shape[1]

    starts, ends = faces.reshape(-1), faces.roll(-1, dims=0).reshape(-1)  # [3 F], half-edge k F + f of face f
    keys = torch.minimum(starts, ends) * vertices.shape[1] + torch.maximum(starts, ends)
    order = argsort_deterministic(keys)
    opens = run_starts(keys.index_select(0, order))
    closes = opens.new_ones(len(order) + 2)  # whether another edge follows
    closes[: len(order)] = opens
    first = nonzero_1d(closes[:-2] & ~closes[1:-1] & closes[2:])
    one, two = order.index_select(0, first), order.index_select(0, first + 1)
    a, b = one % count, two % count
    low, high = starts.index_select(0, one), ends.index_select(0, one)
    proper = nonzero_1d((a != b) & (low != high))
    one, two, a, b, low, high = (values.index_select(0, proper) for values in (one, two, a, b, low, high))

    neighbours = torch.arange(count, device=faces.device).repeat(3)
    neighbours.index_copy_(0, one, b)
    neighbours.index_copy_(0, two, a)
    return FaceGraph(
        pairs=torch.stack([torch.minimum(a, b), torch.maximum(a, b)]),
        lengths=length(gather_columns(vertices, low) - gather_columns(vertices, high)),
        neighbours=neighbours.reshape(3, count),
        normals=normals / torch.where(doubled > 0, doubled, 1.0),
        areas=0.5 * doubled,
    )


def smooth_normals(graph: FaceGraph, iterations: int) -> Tensor:
    """Face normals [3, F] averaged with neighbours that look a similar way.

    Noise must not break up charts, nor may sharp edges blur: weights are area times the squared cosine.
    """
    normals = graph.normals
    own = torch.arange(len(graph.areas), device=normals.device)
    areas = [graph.areas.index_select(0, other) * (other != own) for other in graph.neighbours]
    for _ in range(iterations):
        total = normals * graph.areas
        for other, area in zip(graph.neighbours, areas, strict=True):
            theirs = gather_columns(normals, other)
            total += theirs * (dot(normals, theirs).clamp_(0.0, 1.0).square_() * area)
        size = length(total)
        normals = torch.where(size > 1e-20, total / size.clamp_min(1e-20), normals)
    return normals


def cluster_faces(
    graph: FaceGraph,
    cone_half_angle: float,
    *,
    smoothing: int = 0,
    area_weight: float = AREA_WEIGHT,
    perimeter_weight: float = PERIMETER_WEIGHT,
) -> Tensor:
    """Chart id of every face [F], 0..charts-1; charts are edge-connected.

    The cost of a merge is the half angle of the merged normal cone (radians) plus `area_weight` times the
    joint area plus `perimeter_weight` * perimeter^2 / area; only merges that cost at most `cone_half_angle`
    happen. `smoothing` rounds of normal averaging come first.
    """
    if not 0 < cone_half_angle <= math.pi:
        raise ArgumentError(f"cone_half_angle must lie in (0, pi], got {cone_half_angle}")
    normals = smooth_normals(graph, smoothing)
    return _merge(graph, normals, cone_half_angle, area_weight, perimeter_weight)


def _merge(
    graph: FaceGraph, normals: Tensor, limit: float, area_weight: float, perimeter_weight: float
) -> Tensor:
    count = normals.shape[1]
    labels = torch.arange(count, device=normals.device)
    pairs, shared = graph.pairs, graph.lengths
    sums, areas = normals, graph.areas  # of each cluster
    lowest = torch.ones_like(areas)  # cosine between a cluster's axis and a face's normal
    while True:
        pairs, shared = _join_parallel(pairs, shared, count)
        if not len(shared):
            return labels
        cost = _merge_cost(pairs, shared, sums, areas, lowest, area_weight, perimeter_weight)
        target = _mutual_cheapest(pairs, torch.where(cost <= limit, cost, torch.inf), count)
        nodes = torch.arange(count, device=target.device)
        rank, count = rank_of_true(target == nodes)
        if count == len(nodes):
            return labels
        changed = rank.index_select(0, target.index_select(0, nonzero_1d(target != nodes)))
        target = rank.index_select(0, target)
        labels, pairs = (
            target.index_select(0, labels),
            gather_columns(target[None], pairs.reshape(-1)).reshape(2, -1),
        )
        sums = torch.stack([group_sums(target, axis, count) for axis in sums])
        areas = group_sums(target, areas, count)
        lowest = lowest.new_ones(count).index_copy_(0, target, lowest).index_fill_(0, changed, 1.0)
        lowest = _lowest_cosines(labels, normals, sums, changed, lowest)


def _join_parallel(pairs: Tensor, shared: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Drop pairs inside one cluster and add up the lengths of repeated ones."""
    outer = nonzero_1d(pairs[0] != pairs[1])
    a, b, shared = (values.index_select(0, outer) for values in (*pairs, shared))
    keys = torch.minimum(a, b) * count + torch.maximum(a, b)
    order = argsort_deterministic(keys)
    keys = keys.index_select(0, order)
    opens = run_starts(keys)
    starts = nonzero_1d(opens)
    lengths = group_sums(opens.cumsum(0) - 1, shared.index_select(0, order), len(starts))
    keys = keys.index_select(0, starts)
    low = torch.div(keys, count, rounding_mode="floor")
    return torch.stack([low, keys - low * count]), lengths


def _merge_cost(
    pairs: Tensor,
    shared: Tensor,
    sums: Tensor,
    areas: Tensor,
    lowest: Tensor,
    area_weight: float,
    perimeter_weight: float,
) -> Tensor:
    count = len(areas)
    # Only edges to other clusters count, so an open border costs nothing.
    perimeters = group_sums(pairs[0], shared, count) + group_sums(pairs[1], shared, count)
    traits = torch.stack([*unit(sums), torch.arccos(lowest.clamp(-1.0, 1.0)), areas, perimeters])
    a, b = (gather_columns(traits, end) for end in pairs)
    between = torch.arccos(dot(a[:3], b[:3]).clamp_(-1.0, 1.0))
    low = torch.minimum(-a[3], between - b[3])
    high = torch.maximum(a[3], between + b[3])
    area = a[4] + b[4]
    border = a[5] + b[5] - 2.0 * shared
    return 0.5 * (high - low) + area_weight * area + perimeter_weight * border**2 / area.clamp_min(1e-20)


def _mutual_cheapest(pairs: Tensor, cost: Tensor, count: int) -> Tensor:
    """For both ends of a pair that each have no cheaper partner, the smaller end; else the node [count]
    itself. Pairs that cost inf are out of the question."""
    row = torch.arange(len(cost), device=cost.device).repeat(2)
    best = _cheapest(pairs.reshape(-1), cost.repeat(2), row, count)
    nodes = torch.arange(count, device=best.device)
    partner = gather_columns(pairs, torch.where(best == _NOBODY, 0, best & _ROW)).sum(dim=0) - nodes
    partner = torch.where(best == _NOBODY, nodes, partner)
    return torch.where(best.index_select(0, partner) == best, torch.minimum(nodes, partner), nodes)


def _cheapest(nodes: Tensor, cost: Tensor, row: Tensor, count: int) -> Tensor:
    """Row [count] of each node's lowest finite cost >= 0, in the bits of _ROW; _NOBODY without one.

    A cost as a float32 above its row is one integer, and the lowest wins: of equal costs, the first row.
    """
    keys = (cost.float().view(torch.int32).long() << 32) | row
    keys = torch.where(cost < torch.inf, keys, _NOBODY)
    return group_lowest(nodes, keys, torch.full((count,), _NOBODY, device=cost.device))


def _lowest_cosines(labels: Tensor, normals: Tensor, sums: Tensor, changed: Tensor, known: Tensor) -> Tensor:
    """Cosine [K] of the largest angle between a cluster's mean normal and its faces' normals; `known` but
    for the changed clusters."""
    fresh = torch.zeros_like(known, dtype=torch.bool).index_fill_(0, changed, True)
    faces = nonzero_1d(fresh.index_select(0, labels))
    cluster = labels.index_select(0, faces)
    return group_lowest(
        cluster, dot(gather_columns(unit(sums), cluster), gather_columns(normals, faces)), known
    )


def smooth_borders(graph: FaceGraph, labels: Tensor, cone_half_angle: float, rounds: int = 8) -> Tensor:
    """Straighten chart borders: a face surrounded on two sides by one other chart joins it.

    Only where the face's normal lies within `cone_half_angle` (and 80 degrees) of that chart's axis. Charts
    stay in one piece: whatever a move cuts off becomes a chart of its own, and pieces of a few faces are
    absorbed again.
    """
    floor = math.cos(min(cone_half_angle, _STEEPEST))
    charts = int(labels.max()) + 1
    # Half of the faces a round: two neighbours that trade places would never settle.
    half = (torch.arange(len(labels), device=labels.device) * 2654435761 >> 7) % 2
    for turn in range(rounds):
        axes = _axes(graph, labels, charts)
        first, second, third = (labels.index_select(0, other) for other in graph.neighbours)
        wanted = torch.where((first == second) | (first == third), first, labels)
        wanted = torch.where(second == third, second, wanted)
        fits = dot(graph.normals, gather_columns(axes, wanted)) >= floor
        labels = torch.where(fits & (half == turn % 2), wanted, labels)
    return connected_charts(graph, labels)


def _axes(graph: FaceGraph, labels: Tensor, charts: int) -> Tensor:
    """Unit mean normal [3, charts] of each chart's faces."""
    return unit(torch.stack([group_sums(labels, axis, charts) for axis in graph.normals]))


def connected_charts(graph: FaceGraph, labels: Tensor) -> Tensor:
    """Split charts into edge-connected pieces and number them 0..charts-1."""
    ends = gather_columns(labels[None], graph.pairs.reshape(-1)).reshape(2, -1)
    return connected_labels(len(labels), gather_columns(graph.pairs, nonzero_1d(ends[0] == ends[1])).T)


def absorb_small_charts(graph: FaceGraph, labels: Tensor, smallest: int) -> Tensor:
    """Give each chart of fewer than `smallest` faces to the neighbour it shares most border with.

    Only to one whose axis lies within 80 degrees of its own.
    """
    charts = int(labels.max()) + 1
    for _ in range(4):
        small = group_sizes(labels, charts) < smallest
        axes = _axes(graph, labels, charts)
        ends = gather_columns(labels[None], graph.pairs.reshape(-1)).reshape(2, -1)
        pairs, shared = _join_parallel(ends, graph.lengths, charts)
        if not len(shared):
            break
        pairs, shared = torch.cat([pairs, pairs.flip(0)], dim=1), shared.repeat(2)
        # Only small into not-small, so that no two charts swap.
        fits = small.index_select(0, pairs[0]) & ~small.index_select(0, pairs[1])
        fits &= dot(gather_columns(axes, pairs[0]), gather_columns(axes, pairs[1])) > math.cos(_STEEPEST)
        target = _longest_borders(pairs, torch.where(fits, shared, 0.0), charts)
        nodes = torch.arange(charts, device=target.device)
        rank, charts = rank_of_true(target == nodes)
        if charts == len(nodes):
            break
        labels = rank.index_select(0, target).index_select(0, labels)
    return labels


def larger_neighbours(graph: FaceGraph, labels: Tensor, areas: Tensor, chosen: Tensor) -> Tensor:
    """For each chosen chart, the neighbour of a larger area that it shares most border with; itself [charts]
    where there is none."""
    charts = len(areas)
    ends = gather_columns(labels[None], graph.pairs.reshape(-1)).reshape(2, -1)
    pairs, shared = _join_parallel(ends, graph.lengths, charts)
    if not len(shared):
        return torch.arange(charts, device=labels.device)
    pairs, shared = torch.cat([pairs, pairs.flip(0)], dim=1), shared.repeat(2)
    small, large = (areas.index_select(0, end) for end in pairs)
    fits = chosen.index_select(0, pairs[0]) & (small < large)
    return _longest_borders(pairs, torch.where(fits, shared, 0.0), charts)


def _longest_borders(pairs: Tensor, shared: Tensor, charts: int) -> Tensor:
    """For the first of each pair, the second with which it shares most; itself [charts] where that is 0."""
    row = torch.arange(len(shared), device=shared.device)
    best = _cheapest(pairs[0], torch.where(shared > 0, shared.max() - shared, torch.inf), row, charts)
    found = pairs[1].index_select(0, torch.where(best == _NOBODY, 0, best & _ROW))
    return torch.where(best == _NOBODY, torch.arange(charts, device=best.device), found)


def split_along(positions: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """Cut each chosen chart [charts] in two across its longest direction; `positions` [2, F] of its faces."""
    charts = len(chosen)
    offset, angle = principal_angles(positions, labels, charts)
    along = gather_columns(torch.stack([angle.cos(), angle.sin()]), labels)
    far = chosen.index_select(0, labels) & (dot(offset, along) > 0)
    return labels + charts * far


def principal_angles(points: Tensor, group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Offsets [2, N] of plane points from their group's mean, and the direction [count] (radians from +x) in
    which each group spreads most."""
    members = group_sizes(group, count).clamp_min_(1)
    centre = torch.stack([group_sums(group, axis, count) / members for axis in points])
    x, y = offset = points - gather_columns(centre, group)
    xx, yy, xy = (group_sums(group, value, count) for value in (x * x, y * y, x * y))
    return offset, 0.5 * torch.atan2(2 * xy, xx - yy)
