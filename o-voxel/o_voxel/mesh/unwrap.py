"""UV unwrapping: charts of similar normals, laid flat nearly without distortion, packed into one square
atlas."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError
from .charts import (
    FaceGraph,
    Floats,
    Ints,
    absorb_small_charts,
    cluster_faces,
    connected_charts,
    face_graph,
    smooth_borders,
    split_along,
)
from .flatten import FlatCharts, chart_boxes, flatten_charts, signed_areas, vertex_charts
from .packing import pack_charts
from .validation import check_mesh

log = logging.getLogger(__name__)

_SMALLEST_CHART = 4  # faces; smaller ones join a neighbour where that stays flat
_LEAST_FILL = 0.38  # of its bounding box; rings and crescents below this are cut, they waste the atlas
_SPLIT_ROUNDS = 6


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
    cone_half_angle: float = np.pi / 2,
    smooth_iterations: int = 8,
) -> Unwrapped:
    """Texture coordinates for a mesh (vertices [V, 3] float, faces [F, 3] integer; F >= 1) of any topology.

    Charts keep `cone_half_angle` (radians) as the bound of their normal cones, are flattened by ARAP,
    checked for folds and overlaps, and divided until they pass. Positive faces stay positive: nothing is
    mirrored. Texels are isotropic; charts lie at least two texels of a `texture_size` texture apart, more
    for larger textures. Raises MeshError for an empty mesh or indices out of range, ArgumentError for a
    texture below 16.
    """
    if texture_size < 16:
        raise ArgumentError(f"texture_size must be at least 16, got {texture_size}")
    vertices, faces = check_mesh(vertices, faces)
    points = vertices.cpu().numpy().astype(np.float64)
    triangles = faces.cpu().numpy().astype(np.int64)
    span = float(np.ptp(points, axis=0).max())
    points = (points - points.min(axis=0)) / (span if span > 0 else 1.0)

    flat = _flat_charts(points, triangles, cone_half_angle, smooth_iterations)
    packing = pack_charts(flat.plane, flat.faces, flat.labels, cells=min(512, texture_size // 2))
    device = vertices.device
    vmap = torch.from_numpy(flat.vmap).to(device)
    return Unwrapped(
        vertices=vertices[vmap],
        faces=torch.from_numpy(flat.faces.astype(np.int32)).to(device),
        uvs=torch.from_numpy(packing.uvs.astype(np.float32)).to(device),
        vmap=vmap,
        chart_ids=torch.from_numpy(flat.labels.astype(np.int32)).to(device),
        num_charts=int(flat.labels.max()) + 1,
        utilisation=packing.utilisation,
    )


def _flat_charts(points: Floats, faces: Ints, cone_half_angle: float, smooth_iterations: int) -> FlatCharts:
    graph = face_graph(points, faces)
    labels = cluster_faces(points, faces, cone_half_angle, smoothing=2)
    labels = smooth_borders(graph, labels, cone_half_angle, smooth_iterations)
    labels = absorb_small_charts(graph, labels, _SMALLEST_CHART)
    flat = flatten_charts(points, faces, labels)
    for _ in range(_SPLIT_ROUNDS):
        wasteful = flat.valid & (_box_fill(flat) < _LEAST_FILL)
        if flat.valid.all() and not wasteful.any():
            return flat
        flat = _divide(points, faces, graph, flat, ~flat.valid | wasteful)
    return _divide_to_faces(points, faces, flat)


def _box_fill(flat: FlatCharts) -> Floats:
    """Share [charts] of its tightest upright box that a chart covers; 1 for charts too small to matter."""
    charts = len(flat.valid)
    area = np.bincount(flat.labels, np.abs(signed_areas(flat.plane, flat.faces)), charts)
    owner = vertex_charts(flat.faces, flat.labels, len(flat.plane))
    x, y = np.ascontiguousarray(flat.plane.T)
    fill = np.zeros(charts)
    for angle in np.arange(6) * (np.pi / 12):
        turned_x, turned_y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
        low, high = chart_boxes(turned_x, turned_y, owner, charts)
        fill = np.maximum(fill, area / np.maximum((high - low).prod(axis=1), 1e-30))
    return np.where(area > 1e-3 * area.sum(), fill, 1.0)


def _divide(
    points: Floats, faces: Ints, graph: FaceGraph, flat: FlatCharts, chosen: np.ndarray
) -> FlatCharts:
    """Cut the chosen charts in two and lay only those flat again."""
    pieces = split_along(flat.plane[flat.faces].mean(axis=1), flat.labels, chosen)
    return _flatten_again(points, faces, flat, connected_charts(graph, pieces), chosen)


def _flatten_again(
    points: Floats, faces: Ints, flat: FlatCharts, pieces: Ints, chosen: np.ndarray
) -> FlatCharts:
    """Replace the chosen charts by what `pieces` [F] divides them into; the others keep their plane
    positions."""
    redo = chosen[flat.labels]
    new_labels = np.unique(pieces[redo], return_inverse=True)[1].reshape(-1)
    fresh = flatten_charts(points, faces[redo], new_labels)
    kept_vertices, kept_faces = np.unique(flat.faces[~redo], return_inverse=True)
    kept_charts, kept_labels = np.unique(flat.labels[~redo], return_inverse=True)
    joined = np.empty_like(flat.faces)
    joined[~redo] = kept_faces.reshape(-1, 3)
    joined[redo] = fresh.faces + len(kept_vertices)
    labels = np.empty_like(flat.labels)
    labels[~redo] = kept_labels.reshape(-1)
    labels[redo] = fresh.labels + len(kept_charts)
    return FlatCharts(
        faces=joined,
        vmap=np.concatenate([flat.vmap[kept_vertices], fresh.vmap]),
        plane=np.concatenate([flat.plane[kept_vertices], fresh.plane]),
        labels=labels,
        valid=np.concatenate([flat.valid[kept_charts], fresh.valid]),
    )


def _divide_to_faces(points: Floats, faces: Ints, flat: FlatCharts) -> FlatCharts:
    """The last resort for charts that never passed: a chart for each of their faces."""
    if flat.valid.all():
        return flat
    log.info("unwrap: %d faces become charts of their own", int((~flat.valid[flat.labels]).sum()))
    return _flatten_again(points, faces, flat, np.arange(len(faces)), ~flat.valid)
