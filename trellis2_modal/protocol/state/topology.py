"""Voxel order, voxel keys, and faces as flags on the voxels of a dual grid.

A decoder emits one vertex a voxel and, for every flagged (voxel, axis), a quad over four neighbouring voxels
cut along one of its diagonals. Two bits per voxel and axis then say all that the face array says.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .blocks import ascending, each_block, extremes, on_all_cores
from .mesh_state import bad_state

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

MAX_LEVELS = 6
_GLANCE = 4096
# The other corners of the quad as steps (first, second, both) along two axes, for the quad of axis x, y, z.
QUAD_AXES = ((2, 1), (0, 2), (1, 0))


def scan_keys(coords: I32, grid: tuple[int, int, int]) -> I64:
    """Row-major cell numbers of `[N, 3]` coordinates."""
    keys = np.empty(len(coords), np.int64)

    def number(rows: slice) -> None:
        x, y, z = coords[rows].T
        keys[rows] = (x.astype(np.int64) * grid[1] + y) * grid[2] + z

    each_block(number, len(keys))
    return keys


def coords_of_keys(keys: I64, grid: tuple[int, int, int]) -> I32:
    coords = np.empty((len(keys), 3), np.int32)

    def place(rows: slice) -> None:
        rest, coords[rows, 2] = np.divmod(keys[rows], grid[2])
        coords[rows, 0], coords[rows, 1] = np.divmod(rest, grid[1])

    each_block(place, len(keys))
    return coords


# Six bits of a number, two zeros between each and the next.
_SPREAD = np.array([sum((n >> b & 1) << 3 * b for b in range(MAX_LEVELS)) for n in range(1 << MAX_LEVELS)])


def tree_keys(coords: I32, levels: int) -> I64:
    """Sort keys of the decoder's order: blocks of side `2^levels` row-major, children inside x-fastest."""
    extent = (4096 >> levels) + 1
    inside = (1 << levels) - 1
    keys = np.empty(len(coords), np.int64)

    def number(rows: slice) -> None:
        x, y, z = coords[rows].T
        key = ((x >> levels).astype(np.int64) * extent + (y >> levels)) * extent + (z >> levels)
        key <<= 3 * levels
        if levels:
            for axis, along in enumerate((x, y, z)):
                key += _SPREAD[along & inside] << axis
        keys[rows] = key

    each_block(number, len(keys))
    return keys


def find_order(coords: I32) -> int | None:
    """The number of levels whose order the voxels are in (0 is plain row-major), or None."""
    for levels in (0, 4, 3, 2, 1, 5, 6):
        # most wrong guesses are refuted by the first few voxels
        if ascending(tree_keys(coords[:_GLANCE], levels)) and ascending(tree_keys(coords, levels)):
            return levels
    return None


def order_within_slabs(keys: I64, x: I32, levels: int) -> I64:
    """`np.argsort(keys)` for voxels whose order and whose keys both rise with `x >> levels` first."""
    starts = np.flatnonzero(np.diff(x >> levels, prepend=-1))
    slabs = [(int(a), int(b)) for a, b in pairwise([*starts, len(keys)])]
    order = np.empty(len(keys), np.int64)

    def sort(slab: tuple[int, int]) -> None:
        first, stop = slab
        np.add(np.argsort(keys[first:stop]), first, out=order[first:stop])

    on_all_cores(sort, slabs)
    return order


def neighbours(keys: I64, coords: I32, grid: tuple[int, int, int]) -> list[I32]:
    """For each voxel (in scan order) the index of the next voxel along x, y and z, -1 where there is none."""
    strides = (grid[1] * grid[2], grid[2], 1)
    found = [np.empty(len(keys), np.int32) for _ in strides]

    def search(rows: slice) -> None:
        for axis, stride in enumerate(strides):
            wanted = keys[rows] + stride
            first = int(np.searchsorted(keys, wanted[0]))  # the search itself then stays in the cache
            stop = int(np.searchsorted(keys, wanted[-1])) + 1
            index = np.searchsorted(keys[first:stop], wanted) + first
            np.minimum(index, len(keys) - 1, out=index)
            hit = (keys[index] == wanted) & (coords[rows, axis] + 1 < grid[axis])
            found[axis][rows] = np.where(hit, index, -1)

    each_block(search, len(keys))
    return found


def quad_faces(flags: U8, order: I64, near: list[I32], own_of: I32) -> I32:
    """Faces `[2 Q, 3]` of the quads that some voxels' flags `[n, 3]` ask for (0 none, 1 cut along corners
    0-2, 2 cut along 1-3): (0,1,2),(0,2,3) or (0,1,3),(3,1,2).

    `order` `[n]` is the scan index of these voxels, `own_of` the number of the voxel at a scan index. Quads
    come in order of voxel, then axis. Raises `InvalidStateError` when a corner is missing.
    """
    voxel, axis = np.nonzero(flags)
    first = order[voxel]
    corners = np.empty((4, len(voxel)), np.int32)
    for a, (u, v) in enumerate(QUAD_AXES):
        pick = np.flatnonzero(axis == a)
        if not len(pick):
            continue
        q0 = first[pick]
        q1, q3 = near[u][q0], near[v][q0]
        q2 = near[v][q1]
        if min(int(q1.min()), int(q3.min()), int(q2.min())) < 0:
            raise bad_state("flags", "ask for a quad whose voxels are not all there")
        corners[0, pick], corners[1, pick] = own_of[q0], own_of[q1]
        corners[2, pick], corners[3, pick] = own_of[q2], own_of[q3]
    cut = flags[voxel, axis] == 1
    c0, c1, c2, c3 = corners
    faces = np.empty((len(voxel), 6), np.int32)
    faces[:, 0], faces[:, 1], faces[:, 2] = c0, c1, np.where(cut, c2, c3)
    faces[:, 3], faces[:, 4], faces[:, 5] = (
        np.where(cut, c0, c3),
        np.where(cut, c2, c1),
        np.where(cut, c3, c2),
    )
    return faces.reshape(-1, 3)


def faces_to_flags(faces: I32, coords: I32, scan_of: I64) -> U8 | None:
    """Flags `[N, 3]` in scan order of a face array that looks like a dual grid's, or None.

    `scan_of[i]` is the scan index of voxel i, `coords` is in the voxels' own order. The caller has to compare
    what the flags give with the faces.
    """
    if len(faces) % 2 or (len(faces) and int(extremes(faces)[1]) >= len(coords)):
        return None
    pairs = faces.reshape(-1, 6)
    flags = np.zeros((len(coords), 3), np.uint8)

    def flag(rows: slice) -> bool:
        q0, q1, q3 = pairs[rows, 0], pairs[rows, 1], pairs[rows, 3]
        x, y, z = (coords[q1] - coords[q0]).T
        if (np.abs(x) + np.abs(y) + np.abs(z) != 1).any() or (x + y + z != 1).any():
            return False
        # the step from corner 0 to corner 1 is along z, x, y for the quads of axis x, y, z
        flags[scan_of[q0], np.where(z == 1, 0, np.where(x == 1, 1, 2))] = np.where(q3 == q0, 1, 2)
        return True

    if not flag(slice(0, _GLANCE)) or not all(each_block(flag, len(pairs))):
        return None
    return flags
