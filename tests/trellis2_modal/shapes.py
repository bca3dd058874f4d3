"""Dual-grid test objects of any resolution, as a decoder would emit them: analytic, seeded, fast."""

from __future__ import annotations

import numpy as np

from trellis2_modal.protocol.state import MeshState
from trellis2_modal.protocol.state.topology import tree_keys


def distance(points: np.ndarray) -> np.ndarray:
    """Signed distance (about) to a bumpy sphere joined with a torus; `points` `[..., 3]` in [-0.5, 0.5]^3."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    radius = np.sqrt(x * x + y * y + z * z)
    bumps = 0.012 * np.sin(18 * x) * np.sin(18 * y) * np.sin(18 * z)
    ring = np.sqrt((np.sqrt(x * x + y * y) - 0.36) ** 2 + z * z)
    return np.minimum(radius - 0.27 + bumps, ring - 0.09)


def attributes(points: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth colour with parts of different metal and gloss, and sensor-like noise: `[N, 6]` in 0..1."""
    x, y, z = points.T
    part = (np.hypot(x, y) > 0.31).astype(np.float64)
    base = np.stack([0.5 + 0.4 * np.sin(6 * x), 0.5 + 0.4 * np.sin(5 * y + 1), 0.4 + 0.5 * part], axis=1)
    rest = np.stack([0.9 * part, 0.3 + 0.4 * part + 0.1 * z, np.full_like(x, 0.995)], axis=1)
    values = np.concatenate([base, rest], axis=1)
    values += rng.normal(size=values.shape) * noise * np.array([1, 1, 1, 0.3, 0.5, 0.1])
    return values.clip(0, 1).astype(np.float32)


def dual_grid(resolution: int = 64, noise: float = 0.01, seed: int = 0, scale: float = 1.0) -> MeshState:
    """The object on a grid of `resolution` cells; `scale` above 1 fits more voxels into the same grid."""
    rng = np.random.default_rng(seed)
    voxels, sums, counts, flags = _cells(resolution, scale)
    local = (sums / counts[:, None] - voxels).clip(0, 1) + rng.normal(size=sums.shape) * 0.02
    local = local.clip(-0.5, 1.5)
    order = np.argsort(tree_keys(voxels.astype(np.int32), 4))
    voxels, local, flags = voxels[order].astype(np.int32), local[order], flags[order]
    size = np.float32(1 / resolution)
    vertices = ((voxels + local.astype(np.float32)) * size - np.float32(0.5)).astype(np.float32)
    attrs = attributes(vertices.astype(np.float64), noise, rng)
    weights = rng.random(len(voxels))
    faces = _faces(voxels, flags, weights, resolution)
    return MeshState(vertices, faces, voxels, attrs, voxel_size=1 / resolution, info={"seed": seed})


def _cells(resolution: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells that the surface crosses `[N, 3]`, sums and counts of crossings of their edges, owned flags."""
    n = resolution
    axis = np.arange(n + 1) / n - 0.5
    plane = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    total: dict[str, list[np.ndarray]] = {"cell": [], "point": [], "own": []}

    def slab(i: int) -> np.ndarray:
        points = np.concatenate([np.full((n + 1, n + 1, 1), axis[i]), plane], axis=-1)
        return distance(points / scale)

    def edges(a: np.ndarray, b: np.ndarray, start: np.ndarray, along: int) -> None:
        """Crossings between values `a` and `b` at corners `start [K, 3]` going one step `along`."""
        t = a / (a - b)
        point = start.astype(np.float64)
        point[:, along] += t
        others = [k for k in range(3) if k != along]
        for du in (0, 1):
            for dv in (0, 1):
                cell = start.copy()
                cell[:, others[0]] -= du
                cell[:, others[1]] -= dv
                total["cell"].append(cell)
                total["point"].append(point)
                own = np.full(len(cell), along if du and dv else 3, np.int8)
                total["own"].append(own)

    before: np.ndarray | None = None
    for i in range(n + 1):
        now = slab(i)
        sign = now < 0
        for along, (p, q) in ((1, (np.s_[:-1], np.s_[:])), (2, (np.s_[:], np.s_[:-1]))):
            shift = (np.s_[1:], q) if along == 1 else (p, np.s_[1:])
            j, k = np.nonzero(sign[p, q] != sign[shift])
            start = np.stack([np.full_like(j, i), j, k], axis=1)
            edges(now[p, q][j, k], now[shift][j, k], start, along)
        if before is not None:
            j, k = np.nonzero((before < 0) != sign)
            edges(before[j, k], now[j, k], np.stack([np.full_like(j, i - 1), j, k], axis=1), 0)
        before = now
    cells = np.concatenate(total["cell"])
    points = np.concatenate(total["point"])
    own = np.concatenate(total["own"])
    inside = ((cells >= 0) & (cells < n)).all(axis=1)
    cells, points, own = cells[inside], points[inside], own[inside]
    keys = (cells[:, 0] * n + cells[:, 1]) * n + cells[:, 2]
    unique, inverse = np.unique(keys, return_inverse=True)
    counts = np.bincount(inverse)
    sums = np.stack([np.bincount(inverse, points[:, a]) for a in range(3)], axis=1)
    flags = np.zeros((len(unique), 4), bool)
    flags[inverse, own] = True
    voxels = np.stack([unique // (n * n), unique // n % n, unique % n], axis=1)
    return voxels, sums, counts, flags[:, :3]


def _faces(voxels: np.ndarray, flags: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    keys = (voxels[:, 0].astype(np.int64) * n + voxels[:, 1]) * n + voxels[:, 2]
    by_key = np.argsort(keys)
    table = keys[by_key]
    quads, rows = [], []
    offsets = (
        ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
        ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
        ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
    )
    for axis in range(3):
        row = np.flatnonzero(flags[:, axis])
        corners = np.empty((len(row), 4), np.int64)
        whole = np.ones(len(row), bool)
        for k, offset in enumerate(offsets[axis]):
            cell = voxels[row] + np.array(offset)
            key = (cell[:, 0].astype(np.int64) * n + cell[:, 1]) * n + cell[:, 2]
            at = np.searchsorted(table, key).clip(0, len(table) - 1)
            whole &= (table[at] == key) & (cell < n).all(axis=1)
            corners[:, k] = by_key[at]
        quads.append(corners[whole])
        rows.append(row[whole] * 3 + axis)
    order = np.argsort(np.concatenate(rows))
    q = np.concatenate(quads)[order]
    w = weights[q]
    first = w[:, 0] * w[:, 2] > w[:, 1] * w[:, 3]
    split = np.where(first[:, None], [[0, 1, 2, 0, 2, 3]], [[0, 1, 3, 3, 1, 2]])
    return np.take_along_axis(q, split, axis=1).reshape(-1, 3).astype(np.int32)
