"""Laying charts flat: a planar projection, then as-rigid-as-possible, all charts in one sparse system.

Source: Liu, Zhang, Xu, Gotsman, Gortler, "A Local/Global Approach to Mesh Parameterization" (SGP 2008), the
ARAP energy. Charts come out at the scale of the mesh, so every texel of the atlas covers the same area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .charts import Floats, Ints

ITERATIONS = 8
_COTANGENT_RANGE = (0.02, 20.0)  # positive weights keep the system definite on obtuse triangles
_MOST_SAMPLES = 300_000  # of the overlap check
_OVERLAP_SHARE = 2e-3  # of a chart's samples; a few are rounding at shared edges


@dataclass(frozen=True)
class FlatCharts:
    """Charts in their own planes.

    `faces` [F, 3] index the split vertices, `vmap` [W] gives each split vertex's source, `plane` [W, 2] its
    position in its chart's plane (mesh units), `labels` [F] the chart of each face, `valid` [charts] whether
    the chart neither folds nor overlaps itself.
    """

    faces: Ints
    vmap: Ints
    plane: Floats
    labels: Ints
    valid: np.ndarray


def flatten_charts(vertices: Floats, faces: Ints, labels: Ints, iterations: int = ITERATIONS) -> FlatCharts:
    """Plane coordinates of every chart (labels [F], 0..charts-1); one that ARAP folds stays projected."""
    charts = int(labels.max()) + 1
    keys, split = np.unique(labels[:, None] * len(vertices) + faces, return_inverse=True)
    split = split.reshape(faces.shape)
    owner, vmap = keys // len(vertices), keys % len(vertices)
    positions = vertices[vmap]

    projected = _project(positions, split, labels, owner, charts)
    relaxed = _as_rigid_as_possible(positions, split, owner, projected, iterations)
    relaxed = np.where(np.isfinite(relaxed), relaxed, projected)  # a singular system: no area anywhere
    fits = _unfolded(relaxed, split, labels, positions) & _not_overlapping(relaxed, split, labels, charts)
    flat = np.where(fits[owner][:, None], relaxed, projected)
    if not fits.all():
        fits |= _unfolded(projected, split, labels, positions) & _not_overlapping(
            projected, split, labels, charts
        )
    return FlatCharts(split, vmap, flat, labels, fits)


def _project(positions: Floats, faces: Ints, labels: Ints, owner: Ints, charts: int) -> Floats:
    """Orthogonal projection of each chart along its area-weighted mean normal."""
    corners = positions[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    axis = np.stack([np.bincount(labels, cross[:, k], charts) for k in range(3)], axis=1)
    length = np.linalg.norm(axis, axis=1, keepdims=True)
    axis = np.where(length > 1e-30, axis / np.maximum(length, 1e-30), [0.0, 0.0, 1.0])
    helper = np.where(np.abs(axis[:, :1]) < 0.9, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    tangent = np.cross(helper, axis)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    bitangent = np.cross(axis, tangent)
    return np.stack(
        [
            np.einsum("ij,ij->i", positions, tangent[owner]),
            np.einsum("ij,ij->i", positions, bitangent[owner]),
        ],
        axis=1,
    )


def _as_rigid_as_possible(
    positions: Floats, faces: Ints, owner: Ints, start: Floats, iterations: int
) -> Floats:
    """Alternate: best rotation per triangle, then one linear solve for the plane positions."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    triangle = _triangle_frames(positions[faces])  # [F, 3, 2]
    weights = _cotangents(triangle)  # [F, 3], of the edge opposite to each corner
    ends = ((1, 2), (2, 0), (0, 1))
    count = len(positions)
    rows, columns, values = [], [], []
    for k, (i, j) in enumerate(ends):
        a, b, w = faces[:, i], faces[:, j], weights[:, k]
        rows += [a, b, a, b]
        columns += [a, b, b, a]
        values += [w, w, -w, -w]
    anchors = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))  # one vertex a chart fixes translation
    rows.append(anchors)
    columns.append(anchors)
    values.append(np.ones(len(anchors)))
    system = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count)
    )
    solver = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    # weighted edges at rest, x and y [F] apart: columns add up far faster than rows of two
    rest = [(weights[:, k] * (triangle[:, i] - triangle[:, j]).T) for k, (i, j) in enumerate(ends)]
    corners = [np.ascontiguousarray(faces[:, k]) for k in range(3)]
    plane = start
    for _ in range(iterations):
        x, y = np.ascontiguousarray(plane.T)
        current = [(x[corner], y[corner]) for corner in corners]
        cosine, sine = np.zeros(len(faces)), np.zeros(len(faces))
        for k, (i, j) in enumerate(ends):
            now_x, now_y = current[i][0] - current[j][0], current[i][1] - current[j][1]
            cosine += rest[k][0] * now_x + rest[k][1] * now_y
            sine += rest[k][0] * now_y - rest[k][1] * now_x
        norm = np.maximum(np.hypot(cosine, sine), 1e-30)
        cosine, sine = cosine / norm, sine / norm
        target = np.zeros((count, 2))
        target[anchors] = start[anchors]
        pull = np.zeros((3, 2, len(faces)))  # of each corner
        for k, (i, j) in enumerate(ends):
            rotated = cosine * rest[k][0] - sine * rest[k][1], sine * rest[k][0] + cosine * rest[k][1]
            for axis in range(2):
                pull[i, axis] += rotated[axis]
                pull[j, axis] -= rotated[axis]
        for corner, part in zip(corners, pull, strict=True):
            for axis in range(2):
                target[:, axis] += np.bincount(corner, part[axis], count)
        plane = solver.solve(target)
    return plane


def _triangle_frames(corners: Floats) -> Floats:
    """Each triangle isometrically in its own plane [F, 3, 2]; corner 0 at the origin, corner 1 on +x."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.linalg.norm(first, axis=1)
    along = np.einsum("ij,ij->i", second, first) / np.maximum(length, 1e-30)
    height = np.linalg.norm(np.cross(first, second), axis=1) / np.maximum(length, 1e-30)
    flat = np.zeros((len(corners), 3, 2))
    flat[:, 1, 0], flat[:, 2, 0], flat[:, 2, 1] = length, along, height
    return flat


def _cotangents(triangle: Floats) -> Floats:
    result = np.empty(triangle.shape[:2])
    for k in range(3):
        a = triangle[:, (k + 1) % 3] - triangle[:, k]
        b = triangle[:, (k + 2) % 3] - triangle[:, k]
        cross = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        result[:, k] = (a * b).sum(axis=1) / np.maximum(cross, 1e-30)
    return np.clip(result, *_COTANGENT_RANGE)


def signed_areas(plane: Floats, faces: Ints) -> Floats:
    """Signed area [F] of the flat triangles; positive keeps the winding."""
    a, b, c = plane[faces[:, 0]], plane[faces[:, 1]], plane[faces[:, 2]]
    return 0.5 * ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))


def _unfolded(plane: Floats, faces: Ints, labels: Ints, positions: Floats) -> np.ndarray:
    """Charts [charts] whose folded triangles are only slivers (under a thousandth of the chart's area)."""
    flat = signed_areas(plane, faces)
    folded = np.bincount(labels, np.where(flat < 0, -flat, 0.0))
    corners = positions[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.bincount(labels, 0.5 * np.linalg.norm(cross, axis=1))
    return folded <= 1e-3 * total


def _not_overlapping(plane: Floats, faces: Ints, labels: Ints, charts: int) -> np.ndarray:
    """Charts [charts] that hardly cover any sample point twice; the sample grid has about 3 points a
    face, between 16384 and _MOST_SAMPLES in all."""
    total = np.abs(signed_areas(plane, faces)).sum()
    owner = vertex_charts(faces, labels, len(plane))
    low, high = chart_boxes(plane[:, 0], plane[:, 1], owner, charts)
    # Bounded from below, since charts without area have an extent all the same.
    samples = min(3 * len(faces), _MOST_SAMPLES) + 16384
    cell = max(float(np.sqrt(total / samples)), float((high - low).max()) / 2048, 1e-12)
    size = np.ceil((high - low) / cell).astype(np.int64) + 1
    base = np.concatenate([[0], np.cumsum(size[:, 0] * size[:, 1])[:-1]])
    local = (plane[faces] - low[labels][:, None]) / cell
    face, x, y = covered_cells(local)
    chart = labels[face]
    cells = base[chart] + y * size[chart, 0] + x
    order = np.argsort(cells, kind="stable")
    twice = order[1:][cells[order[1:]] == cells[order[:-1]]]
    repeated = np.bincount(chart[twice], minlength=charts)
    return repeated <= _OVERLAP_SHARE * np.bincount(chart, minlength=charts)


def vertex_charts(faces: Ints, labels: Ints, count: int) -> Ints:
    """The chart [count] of each vertex; charts share none. 0 for a vertex without a face."""
    owner = np.zeros(count, dtype=np.int64)
    for k in range(3):
        owner[faces[:, k]] = labels
    return owner


def chart_boxes(x: Floats, y: Floats, owner: Ints, charts: int) -> tuple[Floats, Floats]:
    """Lowest and highest corner [charts, 2] of the vertices x [W], y [W] of each chart."""
    low, high = np.full((2, charts), np.inf), np.full((2, charts), -np.inf)
    for axis, values in enumerate((x, y)):
        np.minimum.at(low[axis], owner, values)
        np.maximum.at(high[axis], owner, values)
    return low.T, high.T


def covered_cells(triangles: Floats) -> tuple[Ints, Ints, Ints]:
    """(face, column, row) of every unit cell whose centre lies inside a triangle [F, 3, 2] of cell
    coordinates."""
    first, second, third = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    low = np.ceil(np.minimum(np.minimum(first, second), third) - 0.5).astype(np.int64)
    high = np.floor(np.maximum(np.maximum(first, second), third) - 0.5).astype(np.int64)
    size = np.maximum(high - low + 1, 0)
    counts = size[:, 0] * size[:, 1]
    face = np.repeat(np.arange(len(triangles)), counts)
    step = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = np.maximum(size[face, 0], 1)
    column, row = low[face, 0] + step % width, low[face, 1] + step // width
    x, y = column + 0.5, row + 0.5
    inside_left = np.ones(len(face), dtype=bool)
    inside_right = np.ones(len(face), dtype=bool)
    for k in range(3):
        a, b = triangles[face, k], triangles[face, (k + 1) % 3]
        side = (b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])
        inside_left &= side > 1e-9
        inside_right &= side < -1e-9
    inside = inside_left | inside_right
    return face[inside], column[inside], row[inside]
