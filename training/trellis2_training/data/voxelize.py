"""From a primitive table straight to voxels, on the table's device: occupancy, dual grid with exact Hermite
data, PBR.

Conventions are those of `o_voxel.convert`: grid cells of the cube [-0.5, 0.5]^3, edge flags at each voxel's
maximum
corner, one dual vertex a voxel by a regularised quadratic error function constrained to the voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trellis2.errors import InvalidArgumentError
from trellis2.nn.rope import grid_coords

from .. import world

REGULARIZATION = 1e-2
_COARSE = 32
# Half a cell's diagonal, with room for fields that are only first-order distances.
_REACH = 0.866 * 1.25
_CHUNK = 1 << 22


@dataclass(frozen=True)
class VoxelObject:
    """One object on a grid; rows sorted by (x, y, z)."""

    coords: Tensor  # [T, 3] int32
    vertices: Tensor  # [T, 3] float32, dual vertex inside its voxel, 0..1
    intersected: Tensor  # [T, 3] bool, crossed edges at the maximum corner
    attributes: Tensor  # [T, 6] float32 in 0..1: base colour, metallic, roughness, alpha
    resolution: int


def _distance(table: Tensor, points: Tensor) -> Tensor:
    parts = [world.distance(table[None], p[None])[0][0] for p in points.split(_CHUNK)]
    return torch.cat(parts) if parts else points.new_zeros(0)


def surface_cells(table: Tensor, resolution: int) -> Tensor:
    """Cells `[M, 3]` int64 that may touch the surface, coarse to fine; R is 32 times a power of two."""
    device = table.device
    current = min(_COARSE, resolution)
    if resolution % current or (resolution // current).bit_count() != 1:
        raise InvalidArgumentError(f"resolution {resolution} is not {_COARSE} times a power of two, nor less")
    cells = grid_coords(current, device)
    children = grid_coords(2, device)
    while True:
        centres = (cells + 0.5) / current - 0.5
        cells = cells[_distance(table, centres).abs() <= _REACH / current]
        if current == resolution:
            return cells
        current *= 2
        cells = (2 * cells[:, None] + children).reshape(-1, 3)


def voxelize(table: Tensor, resolution: int) -> VoxelObject:
    """The flexible dual grid and the attribute voxels of an object `[K, ROW]`; milliseconds on a GPU."""
    device = table.device
    cells = surface_cells(table, resolution)
    owner, axis, points = _crossings(table, cells, resolution)
    hit_normals = torch.nn.functional.normalize(world.normals(table[None], points[None])[0], dim=-1)

    # The four voxels around an edge of axis a: the owner and its neighbours along the other two axes.
    steps = torch.tensor(
        [[[0, b >> 1, b & 1], [b >> 1, 0, b & 1], [b >> 1, b & 1, 0]] for b in range(4)], device=device
    )  # [4, axis, 3]
    around = owner[None] + steps[:, axis]  # [4, E, 3]
    inside = (around < resolution).all(-1)
    keys = (around[..., 0] * resolution + around[..., 1]) * resolution + around[..., 2]
    edge = torch.arange(owner.shape[0], device=device).expand(4, -1)[inside]
    unique, row = torch.unique(keys[inside], return_inverse=True)
    coords = torch.stack(
        [unique // (resolution * resolution), unique // resolution % resolution, unique % resolution], -1
    )

    flags = torch.zeros(coords.shape[0], 3, dtype=torch.bool, device=device)
    owner_keys = (owner[:, 0] * resolution + owner[:, 1]) * resolution + owner[:, 2]
    flags[torch.searchsorted(unique, owner_keys), axis] = True

    local = (points[edge] + 0.5) * resolution - (coords[row] + 0.5)
    vertices = _dual_vertices(row, coords.shape[0], local, hit_normals[edge])
    position = (coords + 0.5 + vertices) / resolution - 0.5
    _, shown = world.distance(table[None], position[None])
    attributes = world.attributes(table[None], position[None], shown)[0]
    return VoxelObject(coords.int(), vertices + 0.5, flags, attributes, resolution)


def _crossings(table: Tensor, cells: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crossed edges: owner cell `[E, 3]`, axis `[E]`, crossing point `[E, 3]`."""
    corner = (cells + 1) / resolution - 0.5
    at_corner = _distance(table, corner)
    owners, axes, ends, lows, highs = [], [], [], [], []
    for axis in range(3):
        start = corner.clone()
        start[:, axis] -= 1.0 / resolution
        at_start = _distance(table, start)
        crossed = ((at_start < 0) != (at_corner < 0)).nonzero()[:, 0]
        owners.append(cells[crossed])
        axes.append(torch.full_like(crossed, axis))
        ends.append(corner[crossed])
        lows.append(at_start[crossed])
        highs.append(at_corner[crossed])
    owner, along, end = torch.cat(owners), torch.cat(axes), torch.cat(ends)
    low, high = torch.cat(lows), torch.cat(highs)
    direction = torch.nn.functional.one_hot(along, 3).to(end.dtype) / resolution
    a, b = torch.zeros_like(low), torch.ones_like(low)
    t = low / (low - high)
    for _ in range(3):  # false position, the bracket kept
        value = _distance(table, end + (t - 1)[:, None] * direction)
        same = (value < 0) == (low < 0)
        a, low = torch.where(same, t, a), torch.where(same, value, low)
        b, high = torch.where(same, b, t), torch.where(same, high, value)
        gap = low - high
        t = torch.where(gap.abs() > 1e-12, a + (b - a) * low / gap, (a + b) / 2)
    return owner, along, end + (t.clamp(0, 1) - 1)[:, None] * direction


def _dual_vertices(row: Tensor, count: int, points: Tensor, planes: Tensor) -> Tensor:
    """Minimisers `[T, 3]` in [-0.5, 0.5]^3 of each voxel's summed plane quadrics plus the pull to the mean
    crossing.

    `points`, `planes` `[E, 3]` are crossings (voxel units from the centre) and unit normals, `row` their
    voxel.
    """
    offset = (planes * points).sum(-1, keepdim=True)
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    terms = torch.stack([planes[:, i] * planes[:, j] for i, j in pairs], -1)
    data = torch.cat([terms, planes * offset, points, torch.ones_like(offset)], -1)  # [E, 13]
    total = torch.zeros(count, 13, device=data.device, dtype=data.dtype).index_add_(0, row, data)
    weight = REGULARIZATION * total[:, 12]
    xx, yy, zz = (total[:, i] + weight for i in range(3))
    xy, xz, yz = total[:, 3], total[:, 4], total[:, 5]
    rhs = total[:, 6:9] + REGULARIZATION * total[:, 9:12]
    # Inverse by cofactors; the regularisation keeps the determinant away from zero.
    c0, c1, c2 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    det = xx * c0 + xy * c1 + xz * c2
    inverse = [
        [c0, c1, c2],
        [c1, xx * zz - xz * xz, xy * xz - xx * yz],
        [c2, xy * xz - xx * yz, xx * yy - xy * xy],
    ]
    free = torch.stack([sum(inverse[i][j] * rhs[:, j] for j in range(3)) / det for i in range(3)], -1)
    outside = (free.abs() > 0.5).any(-1).nonzero()[:, 0]
    if not outside.numel():
        return free
    # Coordinate descent from the clamped point: convex, so it runs into the constrained minimum.
    x = list(free[outside].clamp(-0.5, 0.5).unbind(-1))
    m = [[e[outside] for e in line] for line in ([xx, xy, xz], [xy, yy, yz], [xz, yz, zz])]
    r = rhs[outside].unbind(-1)
    for _ in range(12):
        for i in range(3):
            rest = sum(m[i][j] * x[j] for j in range(3) if j != i)
            x[i] = ((r[i] - rest) / m[i][i]).clamp(-0.5, 0.5)
    free[outside] = torch.stack(x, -1)
    return free


def occupancy(tables: Tensor, resolution: int = 64) -> Tensor:
    """Cells that the surface passes, `[B, 1, R, R, R]` float32, for a batch `[B, K, ROW]` at once.

    To first order: a cell is crossed where |d| is at most its support along the gradient, half a cell times
    |g|_1, and
    the sign really changes just behind the predicted surface (it does not where two parts merely touch
    inside).
    """
    batch = tables.shape[0]
    centres = ((grid_coords(resolution, tables.device) + 0.5) / resolution - 0.5).expand(batch, -1, -1)
    d, _ = world.distance(tables, centres)
    step = 0.25 / resolution
    gradient = torch.empty_like(centres)
    for axis in range(3):
        moved = centres.clone()
        moved[..., axis] += step
        gradient[..., axis] = (world.distance(tables, moved)[0] - d) / step
    near = d.abs() <= 0.5 / resolution * gradient.abs().sum(-1)
    reach = (d + torch.sign(d) * 2e-3) / gradient.square().sum(-1).clamp(min=1e-2)
    behind, _ = world.distance(tables, centres - reach[..., None] * gradient)
    crossed = near & ((behind < 0) != (d < 0))
    return crossed.view(batch, 1, resolution, resolution, resolution).float()
