"""Voxel order, voxel keys, and faces as flags on the voxels of a dual grid.

A decoder emits one vertex a voxel and, for every flagged (voxel, axis), a quad over four neighbouring voxels
cut along one of its diagonals. Two bits per voxel and axis then say all that the face array says.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .mesh_state import bad_state

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

MAX_LEVELS = 6
# The other corners of the quad as steps (first, second, both) along two axes, for the quad of axis x, y, z.
QUAD_AXES = ((2, 1), (0, 2), (1, 0))


def scan_keys(coords: I32, grid: tuple[int, int, int]) -> I64:
    """Row-major cell numbers of `[N, 3]` coordinates."""
    x, y, z = (coords[:, a].astype(np.int64) for a in range(3))
    return (x * grid[1] + y) * grid[2] + z


def coords_of_keys(keys: I64, grid: tuple[int, int, int]) -> I32:
    rest, z = np.divmod(keys, grid[2])
    x, y = np.divmod(rest, grid[1])
    return np.stack([x, y, z], axis=1).astype(np.int32)


def tree_keys(coords: I32, levels: int) -> I64:
    """Sort keys of the decoder's order: blocks of side `2^levels` row-major, children inside x-fastest."""
    wide = coords.astype(np.int64)
    coarse = wide >> levels
    extent = (4096 >> levels) + 1
    key: np.ndarray = (coarse[:, 0] * extent + coarse[:, 1]) * extent + coarse[:, 2]
    for level in range(levels - 1, -1, -1):
        bit = (wide >> level) & 1
        key = key * 8 + (bit[:, 0] + 2 * bit[:, 1] + 4 * bit[:, 2])
    return key


def find_order(coords: I32) -> int | None:
    """The number of levels whose order the voxels are in (0 is plain row-major), or None."""
    for levels in (0, 4, 3, 2, 1, 5, 6):
        keys = tree_keys(coords, levels)
        if bool((keys[1:] > keys[:-1]).all()):
            return levels
    return None


def neighbours(keys: I64, coords: I32, grid: tuple[int, int, int]) -> list[I32]:
    """For each voxel (in scan order) the index of the next voxel along x, y and z, -1 where there is none."""
    strides = (grid[1] * grid[2], grid[2], 1)
    found = []
    for axis, stride in enumerate(strides):
        wanted = keys + stride
        if axis == 2:
            index = np.minimum(np.arange(1, len(keys) + 1), len(keys) - 1)
        else:
            index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = (keys[index] == wanted) & (coords[:, axis] + 1 < grid[axis])
        found.append(np.where(hit, index, -1).astype(np.int32))
    return found


def quads(flags: U8, order: I64, near: list[I32]) -> tuple[I32, npt.NDArray[np.bool_]]:
    """Corners `[Q, 4]` (as scan indices) and diagonals `[Q]` of the quads that the flags ask for.

    `flags` `[N, 3]` in scan order: 0 none, 1 cut along corners 0-2, 2 cut along 1-3. `order[i]` is the scan
    index of voxel i. Quads come in order of voxel, then axis. Raises `InvalidStateError` when a corner is
    missing.
    """
    rows = flags[order]  # [N, 3] in the voxels' own order
    voxel, axis = np.nonzero(rows)
    cut = rows[voxel, axis] == 1
    first = order[voxel]
    corners = np.empty((len(voxel), 4), np.int32)
    for a, (u, v) in enumerate(QUAD_AXES):
        pick = axis == a
        q0 = first[pick]
        q1, q3 = near[u][q0], near[v][q0]
        q2 = near[v][q1]
        if len(q0) and min(int(q1.min()), int(q3.min()), int(q2.min())) < 0:
            raise bad_state("flags", "ask for a quad whose voxels are not all there")
        corners[pick] = np.stack([q0, q1, q2, q3], axis=1)
    return corners, cut


def quad_faces(corners: I32, cut: npt.NDArray[np.bool_]) -> I32:
    """Two triangles a quad: (0,1,2),(0,2,3) or (0,1,3),(3,1,2)."""
    pattern = np.where(cut[:, None], np.array([0, 1, 2, 0, 2, 3]), np.array([0, 1, 3, 3, 1, 2]))
    return np.take_along_axis(corners, pattern, axis=1).reshape(-1, 3)


def faces_to_flags(faces: I32, coords: I32, scan_of: I64) -> U8 | None:
    """Flags `[N, 3]` in scan order of a face array that looks like a dual grid's, or None.

    `scan_of[i]` is the scan index of voxel i, `coords` is in the voxels' own order. The caller has to compare
    what the flags give with the faces.
    """
    if len(faces) % 2 or (len(faces) and int(faces.max()) >= len(coords)):
        return None
    pairs = faces.reshape(-1, 6)
    q0, q1 = pairs[:, 0], pairs[:, 1]
    step = coords[q1] - coords[q0]
    # the step from corner 0 to corner 1 is along z, x, y for the quads of axis x, y, z
    axis = np.select([step[:, 2] == 1, step[:, 0] == 1, step[:, 1] == 1], [0, 1, 2], default=3)
    if (np.abs(step).sum(axis=1) != 1).any() or (axis == 3).any():
        return None
    flags = np.zeros((len(coords), 3), np.uint8)
    flags[scan_of[q0], axis] = np.where(pairs[:, 3] == q0, 1, 2)
    return flags
