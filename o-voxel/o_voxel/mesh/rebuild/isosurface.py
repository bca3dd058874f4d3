"""A sparse isosurface: the zero set of a distance-like field, meshed by surface nets in cells near it only.

Grid units throughout: the domain is [0, R]^3, a cell has side 1. `band` numbers lattice points and cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import ArgumentError
from ..spatial.band import Band, coords_of, find, key_type, keys_of, unique_keys
from .flood import outside_corners

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
