"""Laying charts flat: a planar projection, then as-rigid-as-possible, all charts in one sparse system.

Source: Liu, Zhang, Xu, Gotsman, Gortler, "A Local/Global Approach to Mesh Parameterization" (SGP 2008), the
ARAP energy. Charts come out at the scale of the mesh, so every texel of the atlas covers the same area.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..arrays.groups import (
    argsort_deterministic,
    expand_counts,
    group_lowest,
    group_sizes,
    group_sums,
    nonzero_1d,
    run_starts,
)
from ..arrays.vectors import cross, dot, gather_columns, length, triangle_cross
from .laplacian import Laplacian, Solver, chosen_solver

ITERATIONS = 8
_COTANGENT_RANGE = (0.02, 20.0)  # positive weights keep the system definite on obtuse triangles
_MOST_SAMPLES = 300_000  # of the overlap check
_OVERLAP_SHARE = 2e-3  # of a chart's samples; a few are rounding at shared edges
_ENDS = ((1, 2), (2, 0), (0, 1))  # of the edge opposite to each corner


@dataclass(frozen=True)
class FlatCharts:
    """Charts in their own planes.

    `faces` [3, F] index the split vertices, `vmap` [W] gives each split vertex's source, `plane` [2, W] its
    position in its chart's plane (mesh units), `labels` [F] the chart of each face, `owner` [W] of each
    vertex, `valid` [charts] whether the chart neither folds nor overlaps itself.
    """

    faces: Tensor
    vmap: Tensor
    plane: Tensor
    labels: Tensor
    owner: Tensor
    valid: Tensor


def flatten_charts(
    vertices: Tensor,
    faces: Tensor,
    labels: Tensor,
    iterations: int = ITERATIONS,
    solver: type[Solver] | None = None,
) -> FlatCharts:
    """Plane coordinates of every chart (labels [F], 0..charts-1); one that ARAP folds stays projected.

    `solver` of the linear systems: the one that is fastest on the device, unless given.
    """
    charts = int(labels.max()) + 1
    split, owner, vmap = _split(vertices.shape[1], faces, labels)
    positions = gather_columns(vertices, vmap)
    normals = triangle_cross(positions, split)
    areas = group_sums(labels, 0.5 * length(normals), charts)

    projected = _project(positions, normals, labels, owner, charts)
    relaxed = _as_rigid_as_possible(
        positions, split, owner, projected, iterations, solver or chosen_solver(vertices.device)
    )
    relaxed = torch.where(relaxed.isfinite(), relaxed, projected)  # a singular system: no area anywhere
    fits = _is_valid(relaxed, split, labels, owner, areas)
    flat = torch.where(fits.index_select(0, owner), relaxed, projected)
    if not bool(fits.all()):
        fits |= _is_valid(projected, split, labels, owner, areas)
    return FlatCharts(split, vmap, flat, labels, owner, fits)


def _split(count: int, faces: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give each chart vertices of its own: new faces [3, F], the chart and the source [W] of each vertex."""
    keys = (labels * count + faces).reshape(-1)
    order = argsort_deterministic(keys)
    keys = keys.index_select(0, order)
    opens = run_starts(keys)
    split = torch.empty_like(order).index_copy_(0, order, opens.cumsum(0) - 1)
    keys = keys.index_select(0, nonzero_1d(opens))
    owner = torch.div(keys, count, rounding_mode="floor")
    return split.reshape(3, -1), owner, keys - owner * count


def _project(positions: Tensor, normals: Tensor, labels: Tensor, owner: Tensor, charts: int) -> Tensor:
    """Orthogonal projection of each chart along its mean normal; `normals` [3, F] weigh by area."""
    axis = torch.stack([group_sums(labels, part, charts) for part in normals])
    size = length(axis)
    up = axis.new_tensor([[0.0], [0.0], [1.0]])
    axis = torch.where(size > 1e-30, axis / size.clamp_min(1e-30), up)
    aside = torch.where(axis[0].abs() < 0.9, up.roll(1, 0), up.roll(2, 0))  # +x, or +y where that is too near
    tangent = cross(aside, axis)
    tangent = tangent / length(tangent)
    bitangent = cross(axis, tangent)
    return torch.stack(
        [dot(positions, gather_columns(tangent, owner)), dot(positions, gather_columns(bitangent, owner))]
    )


def _as_rigid_as_possible(
    positions: Tensor, faces: Tensor, owner: Tensor, start: Tensor, iterations: int, solver: type[Solver]
) -> Tensor:
    """Alternate: best rotation per triangle, then one linear solve for the plane positions."""
    triangle = _triangle_frames(positions, faces)
    weights = _cotangents(triangle)
    system = solver(Laplacian(faces, weights, owner, positions))
    count = positions.shape[1]
    # weighted edges at rest, x and y [F] apart
    rest = [
        (weights[k] * (triangle[i][0] - triangle[j][0]), weights[k] * (triangle[i][1] - triangle[j][1]))
        for k, (i, j) in enumerate(_ENDS)
    ]
    plane = start
    for _ in range(iterations):
        corners = [gather_columns(plane, corner) for corner in faces]
        cosine, sine = torch.zeros_like(weights[0]), torch.zeros_like(weights[0])
        for (x, y), (i, j) in zip(rest, _ENDS, strict=True):
            now_x, now_y = corners[i] - corners[j]
            cosine.addcmul_(x, now_x).addcmul_(y, now_y)
            sine.addcmul_(x, now_y).addcmul_(y, now_x, value=-1.0)
        norm = torch.hypot(cosine, sine).clamp_min_(1e-30)
        cosine /= norm
        sine /= norm
        rotated = [torch.stack([cosine * x - sine * y, sine * x + cosine * y]) for x, y in rest]
        target = start.new_zeros(2, count)
        for corner, (plus, minus) in zip(faces, ((2, 1), (0, 2), (1, 0)), strict=True):
            for axis, pull in zip(target, rotated[plus] - rotated[minus], strict=True):
                axis += group_sums(corner, pull, count)
        plane = system.solve(target, plane)
    return plane


def _triangle_frames(positions: Tensor, faces: Tensor) -> Tensor:
    """Each triangle isometrically in its own plane [3, 2, F]; corner 0 at the origin, corner 1 on +x."""
    origin = gather_columns(positions, faces[0])
    first, second = gather_columns(positions, faces[1]) - origin, gather_columns(positions, faces[2]) - origin
    base = length(first)
    flat = base.new_zeros(3, 2, len(base))
    flat[1, 0] = base
    flat[2, 0] = dot(second, first) / base.clamp_min(1e-30)
    flat[2, 1] = length(cross(first, second)) / base.clamp_min(1e-30)
    return flat


def _cotangents(triangle: Tensor) -> Tensor:
    """Weight [3, F] of the edge opposite to each corner."""
    doubled = (triangle[1, 0] * triangle[2, 1]).clamp_min_(1e-30)
    sides = [(triangle[(k + 1) % 3] - triangle[k], triangle[(k + 2) % 3] - triangle[k]) for k in range(3)]
    return torch.stack([dot(a, b) / doubled for a, b in sides]).clamp_(*_COTANGENT_RANGE)


def signed_areas(plane: Tensor, faces: Tensor) -> Tensor:
    """Signed area [F] of the flat triangles; positive keeps the winding."""
    a, b, c = (gather_columns(plane, corner) for corner in faces)
    (first_x, first_y), (second_x, second_y) = b - a, c - a
    return 0.5 * (first_x * second_y - first_y * second_x)


def _is_valid(plane: Tensor, faces: Tensor, labels: Tensor, owner: Tensor, areas: Tensor) -> Tensor:
    flat = signed_areas(plane, faces)
    return _unfolded(flat, labels, areas) & _not_overlapping(plane, flat, faces, labels, owner, len(areas))


def _unfolded(flat: Tensor, labels: Tensor, areas: Tensor) -> Tensor:
    """Charts [charts] whose folded triangles are only slivers (under a thousandth of the chart's area)."""
    return group_sums(labels, (-flat).clamp_min_(0.0), len(areas)) <= 1e-3 * areas


def _not_overlapping(
    plane: Tensor, flat: Tensor, faces: Tensor, labels: Tensor, owner: Tensor, charts: int
) -> Tensor:
    """Charts [charts] that hardly cover any sample point twice; the sample grid has about 3 points a
    face, between 16384 and _MOST_SAMPLES in all."""
    low, high = chart_boxes(plane, owner, charts)
    # Bounded from below, since charts without area have an extent all the same.
    samples = min(3 * len(labels), _MOST_SAMPLES) + 16384
    cell = (flat.abs().sum() / samples).sqrt().maximum((high - low).max() / 2048).clamp_min(1e-12)
    columns, rows = ((high - low) / cell).ceil().long() + 1
    base = (columns * rows).cumsum(0) - columns * rows
    local = (plane - gather_columns(low, owner)) / cell
    face, x, y = covered_cells(torch.stack([gather_columns(local, corner) for corner in faces]))
    chart = labels.index_select(0, face)
    cells = base.index_select(0, chart) + y * columns.index_select(0, chart) + x
    order = argsort_deterministic(cells)
    again = nonzero_1d(~run_starts(cells.index_select(0, order)))
    repeated = group_sizes(chart.index_select(0, order.index_select(0, again)), charts)
    return repeated <= _OVERLAP_SHARE * group_sizes(chart, charts)


def chart_boxes(plane: Tensor, owner: Tensor, charts: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest corner [2, charts] of each chart's vertices (plane [2, W], owner [W])."""
    start = plane.new_full((charts,), torch.inf)
    low = torch.stack([group_lowest(owner, axis, start) for axis in plane])
    return low, -torch.stack([group_lowest(owner, -axis, start) for axis in plane])


def covered_cells(triangles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(face, column, row) of every unit cell whose centre lies inside a triangle of cell coordinates;
    `triangles` [3, 2, F], corner by corner."""
    first, second, third = triangles
    low = (torch.minimum(torch.minimum(first, second), third) - 0.5).ceil().long()
    high = (torch.maximum(torch.maximum(first, second), third) - 0.5).floor().long()
    width, height = (high - low + 1).clamp_min(0)
    face, step = expand_counts(width * height)
    wide = width.index_select(0, face)
    row = torch.div(step, wide, rounding_mode="floor")
    (left, bottom) = gather_columns(low, face)
    column, row = left + (step - row * wide), bottom + row
    x, y = column + 0.5, row + 0.5
    corners = [gather_columns(corner, face) for corner in triangles]
    sides = []
    for k in range(3):
        (start_x, start_y), (end_x, end_y) = corners[k], corners[(k + 1) % 3]
        sides.append((end_x - start_x) * (y - start_y) - (end_y - start_y) * (x - start_x))
    least = torch.minimum(torch.minimum(sides[0], sides[1]), sides[2])
    most = torch.maximum(torch.maximum(sides[0], sides[1]), sides[2])
    inside = nonzero_1d((least > 1e-9) | (most < -1e-9))
    return face.index_select(0, inside), column.index_select(0, inside), row.index_select(0, inside)
