"""A sparse isosurface: the zero set of a distance-like field, meshed by surface nets in cells near it only.

Grid units throughout: the domain is [0, R]^3, a cell has side 1. Keys number lattice points or cells in
(x, y, z) order, so that sorted keys are lexicographic coordinates; they are int32 where that suffices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ArgumentError

Field = Callable[[torch.Tensor, float], torch.Tensor]
"""`field(points [Q, 3], limit) -> [Q]`: exact where its magnitude is at most `limit`; elsewhere only the sign
must be right and the magnitude must exceed `limit`. It must be 1-Lipschitz (a distance, or less)."""

HALF_DIAGONAL = 0.87
"""A little over sqrt(3)/2: a cell of side h holds a zero only if the field at its centre is below 0.87 h."""

LARGEST_BASE = 128
"""The coarsest grid is evaluated densely: at most this many cells along an axis."""

CHUNK = 1 << 22

# Corner numbering: 4 dx + 2 dy + dz. The 12 edges as (corner, corner, axis), ordered by axis.
CORNERS = torch.tensor([[dx, dy, dz] for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)])
EDGES = [(a, a + step, axis) for axis, step in enumerate((4, 2, 1)) for a in range(8) if not a & step]
# The edge of each axis that ends at the cell's maximum corner, and its quad of cells (offsets from the
# owner).
OWNED = (3, 5, 6)
QUADS = torch.tensor(
    [
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]],
    ]
)


@dataclass(frozen=True)
class Isosurface:
    """A closed mesh whose normals point to growing field values."""

    vertices: torch.Tensor  # [V, 3] float32, grid units
    faces: torch.Tensor  # [F, 3] int32
    cells: torch.Tensor  # [V, 3] int32, the cell that each vertex lies in


@dataclass(frozen=True)
class Band:
    """What refinement found at the last level, R cells along an axis."""

    corner_keys: torch.Tensor  # [C] int64 sorted, lattice of (R + 1)^3 points
    values: torch.Tensor  # [C] field at the corners
    cells: torch.Tensor  # [N, 3] int64, lexicographic: cells whose corners differ in sign
    corners: torch.Tensor  # [N, 8] int64 rows of `corner_keys`
    solid: list[tuple[int, torch.Tensor]]  # per level: cells along an axis, [M, 3] cells wholly below zero
    parents: torch.Tensor  # [P, 3] the refined cells of the last of these levels
    parent_points: torch.Tensor  # [(s + 1)^3, P] rows of `corner_keys`, s = R / that level


def key_type(size: int) -> torch.dtype:
    """The integer type of keys in a grid of `size` points an axis."""
    return torch.int32 if size**3 < 2**31 else torch.int64


def keys_of(coords: torch.Tensor, size: int) -> torch.Tensor:
    """Keys [N] of coords [N, 3] in a grid of `size` points an axis."""
    return (coords[:, 0] * size + coords[:, 1]) * size + coords[:, 2]


def coords_of(keys: torch.Tensor, size: int) -> torch.Tensor:
    """Inverse of `keys_of`: [N, 3]."""
    xy = torch.div(keys, size, rounding_mode="floor")
    x = torch.div(xy, size, rounding_mode="floor")
    return torch.stack([x, xy - x * size, keys - xy * size], dim=1)


def find(sorted_keys: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Row of each key in `sorted_keys`, or -1; NumPy's search is several times faster on a CPU."""
    if len(sorted_keys) == 0:
        return torch.full_like(keys, -1)
    if keys.device.type == "cpu":
        rows = torch.from_numpy(np.searchsorted(sorted_keys.numpy(), keys.numpy()))
    else:
        rows = torch.searchsorted(sorted_keys, keys)
    rows = rows.clamp_(max=len(sorted_keys) - 1)
    return torch.where(sorted_keys[rows] == keys, rows, -1)


def unique_keys(keys: torch.Tensor) -> torch.Tensor:
    """Sorted distinct keys."""
    if keys.device.type != "cpu":
        return torch.unique(keys)
    ordered = np.sort(keys.numpy())
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.from_numpy(ordered[first])


def base_resolution(resolution: int) -> int:
    """The coarsest grid: `resolution` halved until at most 32, each halving exact.

    Raises:
        ArgumentError: the resolution is below 2 or leaves a coarsest grid too large to evaluate densely.
    """
    if resolution < 2:
        raise ArgumentError(f"resolution must be 2 or more, got {resolution}")
    base = resolution
    while base > 32 and base % 2 == 0:
        base //= 2
    if base > LARGEST_BASE:
        raise ArgumentError(
            f"resolution {resolution} halves only to {base}, above {LARGEST_BASE}; use a multiple of a power "
            "of two, such as 256, 384 or 512"
        )
    return base


def isosurface(
    field: Field, resolution: int, *, only_outer: bool = False, device: torch.device | str = "cpu"
) -> Isosurface:
    """Mesh the zero set of `field` over `resolution` cells an axis. Empty when there is none.

    A cell's vertex is the mean of the zero crossings of its edges (surface nets), crossings being sign
    changes between < 0 and >= 0; quads follow the flexible dual grid's order and are split along diagonal
    0-2. With `only_outer`, quads stay only where their positive side connects to the outside of the grid,
    so inner layers and voids vanish. Quads that would need a cell outside the grid are dropped.

    Raises:
        ArgumentError: see `base_resolution`.
    """
    band = refine(field, resolution, torch.device(device))
    outside = None
    if only_outer:
        from .flood import outside_corners

        outside = outside_corners(band, resolution)
    return surface_nets(band, resolution, outside)


def _evaluate(field: Field, points: torch.Tensor, limit: float) -> torch.Tensor:
    return torch.cat([field(part, limit) for part in points.split(CHUNK)]) if len(points) else points[:, 0]


def refine(field: Field, resolution: int, device: torch.device) -> Band:
    """Halve cells that may hold a zero, from the coarse grid to `resolution`."""
    level = base_resolution(resolution)
    axis = torch.arange(level, device=device, dtype=key_type(resolution + 1))
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    solid: list[tuple[int, torch.Tensor]] = []
    octants = CORNERS.to(cells)
    while True:
        size = resolution / level
        last = level == resolution or level * 2 == resolution
        centres = ((cells + 0.5) * size).float()
        values = _evaluate(field, centres, HALF_DIAGONAL * size)
        active = values.abs() < HALF_DIAGONAL * size
        solid.append((level, cells[~active & (values < 0)]))
        cells = cells[active]
        if last:
            break
        level *= 2
        cells = (cells[:, None] * 2 + octants).reshape(-1, 3)
    return _finest(field, cells, resolution, resolution // level, solid)


def _finest(
    field: Field, parents: torch.Tensor, resolution: int, split: int, solid: list[tuple[int, torch.Tensor]]
) -> Band:
    """Evaluate every lattice point of the parents once and list the cells in which the sign changes.

    Parents are cells of side `split` (1 or 2). Testing corners directly replaces the centre test of the last
    level: the field is 1-Lipschitz, so no cell with a sign change is lost.
    """
    device = parents.device
    side = split + 1
    step = torch.arange(side, device=device, dtype=parents.dtype)
    block = torch.stack(torch.meshgrid(step, step, step, indexing="ij"), dim=-1).reshape(-1, 3)
    size = resolution + 1
    # [side^3, P]: each row ascends because parents do, which sorting and searching profit from.
    point_keys = keys_of(parents * split, size) + keys_of(block, size)[:, None]
    order = torch.argsort(point_keys[0])
    parents, point_keys = parents[order], point_keys[:, order]
    corner_keys = unique_keys(point_keys.reshape(-1))
    values = _evaluate(field, coords_of(corner_keys, size).float(), 1.0)
    negative = values < 0
    cells, corners = [], []
    rows = torch.stack([find(corner_keys, row) for row in point_keys])  # [side^3, P]
    signs = negative[rows]
    child = step[:split]
    children = torch.stack(torch.meshgrid(child, child, child, indexing="ij"), dim=-1).reshape(-1, 3)
    octants = CORNERS.to(parents)
    for offset in children:
        local = keys_of(octants + offset, side).long()  # [8]
        count = signs[local].sum(dim=0)
        mixed = (count > 0) & (count < 8)
        cells.append(parents[mixed] * split + offset)
        corners.append(rows[local][:, mixed].T)
    found, found_corners = torch.cat(cells), torch.cat(corners)
    order = torch.argsort(keys_of(found, size))
    return Band(corner_keys, values, found[order], found_corners[order], solid, parents, rows)


def surface_nets(band: Band, resolution: int, outside: torch.Tensor | None = None) -> Isosurface:
    """Vertices and faces of a band; `outside` [C] bool keeps only quads whose positive end is marked."""
    device = band.cells.device
    values = band.values[band.corners.T]  # [8, N]
    negative = values < 0
    total = torch.zeros((3, values.shape[1]), dtype=torch.float32, device=device)
    crossings = torch.zeros(values.shape[1], dtype=torch.float32, device=device)
    for a, b, axis in EDGES:
        crosses = negative[a] != negative[b]
        crossings += crosses
        fraction = values[a] / torch.where(crosses, values[a] - values[b], 1.0)
        total[axis] += torch.where(crosses, fraction, 0.0)
        for other in range(3):
            if other != axis and a & (4 >> other):
                total[other] += crosses
    vertices = band.cells.float() + (total / crossings).T

    cell_keys = keys_of(band.cells, resolution)
    faces = []
    for axis in range(3):
        corner = OWNED[axis]
        rising = negative[corner] & ~negative[7]
        falling = ~negative[corner] & negative[7]
        owner = (rising | falling).nonzero()[:, 0]
        if outside is not None:
            ends = band.corners[owner]
            positive = torch.where(rising[owner], ends[:, 7], ends[:, corner])
            owner = owner[outside[positive]]
        others = band.cells[owner][:, None] + QUADS[axis].to(band.cells)  # [Q, 4, 3]
        inside_grid = (others < resolution).all(dim=-1).all(dim=-1)
        owner, others = owner[inside_grid], others[inside_grid]
        quad = [owner] + [find(cell_keys, keys_of(others[:, k], resolution)) for k in (1, 2, 3)]
        up = rising[owner]
        q0, q1, q2, q3 = quad
        first = torch.stack([q0, torch.where(up, q2, q1), torch.where(up, q1, q2)], dim=1)
        second = torch.stack([q0, torch.where(up, q3, q2), torch.where(up, q2, q3)], dim=1)
        faces.append(torch.stack([first, second], dim=1).reshape(-1, 3))
    triangles = torch.cat(faces)
    used = torch.zeros(len(vertices), dtype=torch.bool, device=device)
    used[triangles.reshape(-1)] = True
    remap = used.cumsum(0) - 1
    return Isosurface(vertices[used], remap[triangles].int(), band.cells[used].int())
