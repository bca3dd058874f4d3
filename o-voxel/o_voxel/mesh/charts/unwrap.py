"""UV unwrapping: charts of similar normals, laid flat nearly without distortion, packed into one square
atlas."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ArgumentError
from ..arrays.groups import group_sizes, group_sums, nonzero_1d, rank_of_true
from ..arrays.threads import on_one_thread
from ..arrays.vectors import gather_columns
from ..validation import check_mesh
from .clusters import (
    FaceGraph,
    absorb_small_charts,
    cluster_faces,
    connected_charts,
    face_graph,
    larger_neighbours,
    smooth_borders,
    split_along,
)
from .flatten import FlatCharts, chart_boxes, flatten_charts, signed_areas
from .packing import pack_charts

log = logging.getLogger(__name__)

_SMALLEST_CHART = 4  # faces; smaller ones join a neighbour where that stays flat
_LEAST_FILL = 0.5  # of its bounding box; rings and crescents below this are cut, they waste the atlas
_SPLIT_ROUNDS = 6
_MERGE_ROUNDS, _MORE_ROUNDS = 6, 12
_FEW, _MANY = 32, 300  # charts that nobody minds; charts for which more rounds are worth their time
_SMALL = 1e-3  # of the whole area; smaller charts join a neighbour with which they lie flat


@dataclass(frozen=True)
class Unwrapped:
    """A mesh with texture coordinates, its vertices duplicated along the seams.

    `vertices` [W, 3] float32 = source[vmap]; `faces` [F, 3] int32, face order as given; `uvs` [W, 2] float32
    in [0, 1]; `vmap` [W] int64 into the source's vertices; `chart_ids` [F] int32; `utilisation` the share of
    the atlas that faces cover. All on the source's device.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    vmap: Tensor
    chart_ids: Tensor
    num_charts: int
    utilisation: float


def unwrap(
    vertices: Tensor,
    faces: Tensor,
    *,
    texture_size: int = 1024,
    cone_half_angle: float = math.pi / 2,
    smooth_iterations: int = 8,
) -> Unwrapped:
    """Texture coordinates for a mesh (vertices [V, 3] float, faces [F, 3] integer; F >= 1) of any topology.

    Charts keep `cone_half_angle` (radians) as the bound of their normal cones, are flattened by ARAP,
    checked for folds and overlaps, and divided until they pass; from pi / 2 on, small ones join a
    neighbour wherever both lie flat together. Positive faces stay positive: nothing is
    mirrored. Texels are isotropic; charts lie at least two texels of a `texture_size` texture apart, more
    for larger textures. Raises MeshError for an empty mesh or indices out of range, ArgumentError for a
    texture below 16.
    """
    if texture_size < 16:
        raise ArgumentError(f"texture_size must be at least 16, got {texture_size}")
    vertices, faces = check_mesh(vertices, faces)
    if vertices.device.type == "cpu":
        return on_one_thread(
            lambda: _unwrap(vertices, faces, texture_size, cone_half_angle, smooth_iterations)
        )
    return _unwrap(vertices, faces, texture_size, cone_half_angle, smooth_iterations)


def _unwrap(
    vertices: Tensor, faces: Tensor, texture_size: int, cone_half_angle: float, smooth_iterations: int
) -> Unwrapped:
    points = vertices.T.double()
    points = points - points.min(dim=1, keepdim=True).values
    span = points.max()
    points = points / torch.where(span > 0, span, 1.0)

    flat = _flat_charts(points, faces.T.long().contiguous(), cone_half_angle, smooth_iterations)
    packing = pack_charts(flat, cells=min(512, texture_size // 2))
    return Unwrapped(
        vertices=vertices.index_select(0, flat.vmap),
        faces=flat.faces.T.int().contiguous(),
        uvs=packing.uvs.T.float().contiguous(),
        vmap=flat.vmap,
        chart_ids=flat.labels.int(),
        num_charts=len(flat.valid),
        utilisation=packing.utilisation,
    )


def _flat_charts(points: Tensor, faces: Tensor, cone_half_angle: float, smooth_iterations: int) -> FlatCharts:
    graph = face_graph(points, faces)
    labels = cluster_faces(graph, cone_half_angle, smoothing=2)
    labels = smooth_borders(graph, labels, cone_half_angle, smooth_iterations)
    labels = absorb_small_charts(graph, labels, _SMALLEST_CHART)
    flat = flatten_charts(points, faces, labels)
    for _ in range(_SPLIT_ROUNDS):
        chosen = ~flat.valid | (_box_fill(flat) < _LEAST_FILL)
        if not bool(chosen.any()):
            break
        pieces = split_along(
            gather_columns(flat.plane, flat.faces.reshape(-1)).reshape(2, 3, -1).mean(dim=1),
            flat.labels,
            chosen,
        )
        flat = _flatten_again(points, faces, flat, connected_charts(graph, pieces), chosen)
    flat = _divide_to_faces(points, faces, flat)
    return flat if cone_half_angle < math.pi / 2 else _merge_small(points, faces, graph, flat)


def _box_fill(flat: FlatCharts) -> Tensor:
    """Share [charts] of its tightest upright box that a chart covers; 1 for charts too small to matter."""
    charts = len(flat.valid)
    area = group_sums(flat.labels, signed_areas(flat.plane, flat.faces).abs(), charts)
    x, y = flat.plane
    fill = torch.zeros_like(area)
    for turn in range(6):
        cosine, sine = math.cos(turn * math.pi / 12), math.sin(turn * math.pi / 12)
        low, high = chart_boxes(
            torch.stack([cosine * x - sine * y, sine * x + cosine * y]), flat.owner, charts
        )
        fill = torch.maximum(fill, area / (high - low).prod(dim=0).clamp_min(1e-30))
    return torch.where(area > 1e-3 * area.sum(), fill, 1.0)


def _flatten_again(
    points: Tensor, faces: Tensor, flat: FlatCharts, pieces: Tensor, chosen: Tensor
) -> FlatCharts:
    """Replace the chosen charts by what `pieces` [F] divides them into; the others keep their plane
    positions."""
    redo = nonzero_1d(chosen.index_select(0, flat.labels))
    pieces = pieces.index_select(0, redo)
    rank, _ = rank_of_true(group_sizes(pieces, int(pieces.max()) + 1) > 0)
    fresh = flatten_charts(points, gather_columns(faces, redo), rank.index_select(0, pieces))
    return _replaced(flat, chosen, fresh, redo)


def _replaced(flat: FlatCharts, gone: Tensor, fresh: FlatCharts, places: Tensor) -> FlatCharts:
    """Charts without those that are `gone` [charts]; their faces, at `places`, get `fresh` charts."""
    stays = nonzero_1d(~gone.index_select(0, flat.labels))
    kept, _ = _some(flat, ~gone)
    joined, labels = torch.empty_like(flat.faces), torch.empty_like(flat.labels)
    joined[:, places] = fresh.faces + len(kept.vmap)
    joined[:, stays] = kept.faces
    labels[places] = fresh.labels + len(kept.valid)
    labels[stays] = kept.labels
    return FlatCharts(
        faces=joined,
        vmap=torch.cat([kept.vmap, fresh.vmap]),
        plane=torch.cat([kept.plane, fresh.plane], dim=1),
        labels=labels,
        owner=torch.cat([kept.owner, fresh.owner + len(kept.valid)]),
        valid=torch.cat([kept.valid, fresh.valid]),
    )


def _some(flat: FlatCharts, wanted: Tensor) -> tuple[FlatCharts, Tensor]:
    """The charts that are `wanted` [charts], and the places of their faces."""
    places = nonzero_1d(wanted.index_select(0, flat.labels))
    of_vertex = wanted.index_select(0, flat.owner)
    vertices = nonzero_1d(of_vertex)
    vertex_rank, _ = rank_of_true(of_vertex)
    chart_rank, _ = rank_of_true(wanted)
    return FlatCharts(
        faces=vertex_rank[flat.faces[:, places]],
        vmap=flat.vmap[vertices],
        plane=gather_columns(flat.plane, vertices),
        labels=chart_rank[flat.labels[places]],
        owner=chart_rank[flat.owner[vertices]],
        valid=flat.valid[nonzero_1d(wanted)],
    ), places


def _merge_small(points: Tensor, faces: Tensor, graph: FaceGraph, flat: FlatCharts) -> FlatCharts:
    """Join small charts to the larger neighbour that they share most border with, where both lie flat
    together.

    What one small chart spoils, others may not: later rounds try fewer at once.
    """
    for turn in range(_MORE_ROUNDS):
        if len(flat.valid) <= (_FEW if turn < _MERGE_ROUNDS else _MANY):
            break
        areas = group_sums(flat.labels, graph.areas, len(flat.valid))
        target = larger_neighbours(graph, flat.labels, areas, areas < _SMALL * areas.sum())
        nodes = torch.arange(len(target), device=target.device)
        if turn % 2:
            target = torch.where((nodes * 2654435761 >> 7) % 2 == turn // 2 % 2, target, nodes)
        moves = target != nodes
        target = torch.where(moves & moves.index_select(0, target), nodes, target)
        joined = torch.zeros_like(moves).index_fill_(0, target[nonzero_1d(target != nodes)], True)
        chosen = joined | (target != nodes)
        if not bool(chosen.any()):
            continue
        redo = nonzero_1d(chosen.index_select(0, flat.labels))
        rank, _ = rank_of_true(joined)
        merged = rank.index_select(0, target).index_select(0, flat.labels.index_select(0, redo))
        fresh = flatten_charts(points, gather_columns(faces, redo), merged)
        fits = fresh.valid
        fresh, places = _some(fresh, fits)
        done = chosen & fits.index_select(0, rank.index_select(0, target).clamp(min=0))
        flat = _replaced(flat, done, fresh, redo.index_select(0, places))
    return flat


def _divide_to_faces(points: Tensor, faces: Tensor, flat: FlatCharts) -> FlatCharts:
    """The last resort for charts that never passed: a chart for each of their faces."""
    if bool(flat.valid.all()):
        return flat
    count = int((~flat.valid).index_select(0, flat.labels).sum())
    log.info("unwrap: %d faces become charts of their own", count)
    each = torch.arange(faces.shape[1], device=faces.device)
    return _flatten_again(points, faces, flat, each, ~flat.valid)
