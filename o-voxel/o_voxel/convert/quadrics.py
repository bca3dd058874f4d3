"""Quadrics: squared distances to planes, lines and points, summed per voxel and minimised inside its box.

A quadric is ten float64 numbers `(xx, xy, xz, yy, yz, zz, bx, by, bz, c)` for the energy
`p.A p + 2 b.p + c` (Garland and Heckbert 1997, section 4, packed).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

VOXELS_PER_CHUNK = 1 << 17
_UPPER = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def plane_quadrics(triangles: Tensor) -> Tensor:
    """Squared distance to each triangle's plane, `[F, 10]`; zero for triangles without area."""
    normal = triangle_normals(triangles)
    offset = -(normal * triangles[:, 0]).sum(dim=1, keepdim=True)
    return _pack(normal[:, :, None] * normal[:, None, :], normal * offset, offset[:, 0] ** 2)


def line_quadrics(start: Tensor, direction: Tensor) -> Tensor:
    """Squared distance to the lines through `start [E, 3]` along unit `direction [E, 3]`, `[E, 10]`."""
    a = torch.eye(3, dtype=start.dtype, device=start.device) - direction[:, :, None] * direction[:, None, :]
    b = -(a @ start[:, :, None])[:, :, 0]
    return _pack(a, b, -(b * start).sum(dim=1))


def point_quadrics(point: Tensor) -> Tensor:
    """Squared distance to points `[N, 3]`, `[N, 10]`."""
    eye = torch.eye(3, dtype=point.dtype, device=point.device).expand(len(point), 3, 3)
    return _pack(eye, -point, (point * point).sum(dim=1))


def triangle_normals(triangles: Tensor) -> Tensor:
    """Unit normals `[F, 3]` by the right-hand rule; zero for triangles without area."""
    normal = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 1], dim=1)
    length = normal.norm(dim=1, keepdim=True)
    return torch.where(length > 0, normal / torch.where(length > 0, length, 1.0), 0.0)


def energies(quadrics: Tensor, points: Tensor) -> Tensor:
    """Energy of each quadric `[N, 10]` at its point `[N, 3]`, `[N]`."""
    weights = [(1.0 if i == j else 2.0) * points[:, i] * points[:, j] for i, j in _UPPER]
    basis = torch.stack([*weights, *(2 * points).unbind(dim=1), torch.ones_like(points[:, 0])], dim=1)
    return (quadrics * basis).sum(dim=1)


def minimise_in_boxes(quadrics: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    """Point of least energy inside each closed box, float64 `[N, 3]`.

    The free minimum where it lies inside; else the best of the minima on the 6 faces, 12 edges and 8
    corners, which is exact for a convex energy. Where the free minimum is not unique, the one nearest to the
    centre is tried.

    Args:
        quadrics: `[N, 10]` about the origin.
        centre: box centres, `[N, 3]`.
        size: box sides, `[3]`.
    """
    chunks = [
        _minimise_chunk(quadrics[i : i + VOXELS_PER_CHUNK], centre[i : i + VOXELS_PER_CHUNK], size)
        for i in range(0, len(quadrics), VOXELS_PER_CHUNK)
    ]
    return torch.cat(chunks) if chunks else centre.clone()


def _minimise_chunk(quadrics: Tensor, centre: Tensor, size: Tensor) -> Tensor:
    a, b = _about(quadrics, centre, size)
    best = _free_minimum(a, b)
    outside = (~(best.abs() <= 0.5).all(dim=1)).nonzero(as_tuple=True)[0]  # NaN counts as outside
    if len(outside):
        best[outside] = _best_on_boundary(a[outside], b[outside])
    return centre + best * size


def _about(quadrics: Tensor, centre: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix `[N, 3, 3]` and linear part `[N, 3]` in voxel units from the box centre (constant dropped)."""
    a = quadrics.new_empty((len(quadrics), 3, 3))
    for column, (i, j) in enumerate(_UPPER):
        a[:, i, j] = a[:, j, i] = quadrics[:, column]
    b = quadrics[:, 6:9] + (a @ centre[:, :, None])[:, :, 0]
    return a * (size[:, None] * size[None, :]), b * size


def _free_minimum(a: Tensor, b: Tensor) -> Tensor:
    """Solution of `A t = -b`, `[N, 3]`; the smallest one where A is singular."""
    adjugate = torch.stack(
        [
            torch.linalg.cross(a[:, 1], a[:, 2], dim=1),
            torch.linalg.cross(a[:, 2], a[:, 0], dim=1),
            torch.linalg.cross(a[:, 0], a[:, 1], dim=1),
        ],
        dim=2,
    )
    determinant = (a[:, 0] * adjugate[:, :, 0]).sum(dim=1)
    trace = a[:, 0, 0] + a[:, 1, 1] + a[:, 2, 2]
    solution = -(adjugate @ b[:, :, None])[:, :, 0] / determinant[:, None]
    singular = (~(determinant > 1e-12 * trace**3)).nonzero(as_tuple=True)[0]
    if len(singular):
        inverse = torch.linalg.pinv(a[singular], rtol=1e-9, hermitian=True)
        solution[singular] = -(inverse @ b[singular][:, :, None])[:, :, 0]
    return solution


def _best_on_boundary(a: Tensor, b: Tensor) -> Tensor:
    """Least-energy point on the surface of the cube [-1/2, 1/2]^3, `[N, 3]`."""
    best = torch.zeros_like(b)
    least = torch.full_like(b[:, 0], torch.inf)

    def consider(t: Tensor) -> None:
        inside = (t.abs() <= 0.5).all(dim=1)
        energy = (t * ((a @ t[:, :, None])[:, :, 0] + 2 * b)).sum(dim=1)
        better = inside & (energy < least)
        best[better], least[better] = t[better], energy[better]

    for fixed, side in itertools.product(range(3), (-0.5, 0.5)):
        i, j = [axis for axis in range(3) if axis != fixed]
        right_i, right_j = -(b[:, i] + a[:, i, fixed] * side), -(b[:, j] + a[:, j, fixed] * side)
        determinant = a[:, i, i] * a[:, j, j] - a[:, i, j] ** 2
        t = torch.full_like(b, side)
        t[:, i] = (right_i * a[:, j, j] - right_j * a[:, i, j]) / determinant
        t[:, j] = (right_j * a[:, i, i] - right_i * a[:, i, j]) / determinant
        consider(t)
    for free, side_i, side_j in itertools.product(range(3), (-0.5, 0.5), (-0.5, 0.5)):
        i, j = [axis for axis in range(3) if axis != free]
        t = torch.empty_like(b)
        t[:, i], t[:, j] = side_i, side_j
        t[:, free] = -(b[:, free] + a[:, free, i] * side_i + a[:, free, j] * side_j) / a[:, free, free]
        consider(t)
    for corner in itertools.product((-0.5, 0.5), repeat=3):
        consider(torch.tensor(corner, dtype=b.dtype, device=b.device).expand(len(b), 3))
    return best


def _pack(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.cat((torch.stack([a[:, i, j] for i, j in _UPPER], dim=1), b, c[:, None]), dim=1)
