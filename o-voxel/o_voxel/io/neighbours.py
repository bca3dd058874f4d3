"""The attribute prediction `neighbor`: each voxel minus a voxel just before it in space."""

from __future__ import annotations

import numpy as np

# The first of these that exists predicts; offsets in x, y, z.
PRIORITY = ((-1, -1, -1), (0, -1, -1), (-1, 0, -1), (-1, -1, 0), (0, 0, -1), (0, -1, 0), (-1, 0, 0))


def predict_from_neighbours(coords: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows minus their predictors' rows (unchanged without one), uint8 `[N, C]`.

    Args:
        coords: `[N, 3]` within the chunk.
        rows: uint8 `[N, C]`.
    """
    predictor = _predictors(coords)
    return np.where((predictor >= 0)[:, None], rows - rows[predictor], rows)


def restore_from_neighbours(coords: np.ndarray, filtered: np.ndarray) -> np.ndarray:
    """The inverse of `predict_from_neighbours`.

    A value is the sum of the differences along its chain of predictors, summed by doubling the stride.
    """
    value, ahead = filtered.copy(), _predictors(coords)
    active = np.flatnonzero(ahead >= 0)
    while len(active):
        value[active], ahead[active] = value[active] + value[ahead[active]], ahead[ahead[active]]
        active = active[ahead[active] >= 0]
    return value


def _predictors(coords: np.ndarray) -> np.ndarray:
    """Row of each voxel's predictor, -1 where none exists."""
    side = int(coords.max()) + 2
    key = ((coords[:, 0] + 1) * side + coords[:, 1] + 1) * side + coords[:, 2] + 1
    order = np.argsort(key)
    keys = key[order]
    found = np.full(len(coords), -1, np.int64)
    for offset in PRIORITY:
        wanted = key + (offset[0] * side + offset[1]) * side + offset[2]
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = (found < 0) & (keys[at] == wanted)
        found[hit] = order[at[hit]]
    return found
