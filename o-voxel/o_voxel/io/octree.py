"""The octree over one chunk's voxels: its byte stream, and the attribute prediction that follows it.

Nodes are stored in depth-first pre-order, a byte each, bit `b` set where child `b` exists; voxels themselves
take no byte. Everything is done a level at a time, so that a million voxels take a fraction of a second in
numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import FormatError

_BITS = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(bool)  # [256, 8]
_CHILDREN = _BITS.sum(axis=1)


@dataclass(frozen=True)
class Octree:
    """Pre-order bytes and, a level, the nodes in code order.

    `position[l]` is each node's place in the stream, `first[l]` its first voxel; level 0 is the root.
    """

    data: np.ndarray  # uint8 [M]
    codes: np.ndarray  # int64 [N], ascending
    position: list[np.ndarray]
    first: list[np.ndarray]

    def families(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """A level at a time from the root: each child's parent (number in its level), rank among its
        siblings, and first voxel."""
        depth = len(self.position)
        leaves = np.arange(len(self.codes))
        for level in range(depth):
            bits = _BITS[self.data[self.position[level]]]
            parent, _ = np.nonzero(bits)
            rank = (np.cumsum(bits, axis=1) - 1)[bits]
            yield parent, rank, self.first[level + 1] if level + 1 < depth else leaves


def encode_octree(codes: np.ndarray, depth: int) -> Octree:
    """The octree of ascending z-order codes with `3 * depth` bits."""
    positions, firsts, masks = [], [], []
    for level in range(depth):
        prefix = codes >> (3 * (depth - level))
        starts = np.flatnonzero(np.diff(prefix, prepend=-1))
        child = (codes >> (3 * (depth - level - 1))) & 7
        masks.append(np.bitwise_or.reduceat(1 << child, starts).astype(np.uint8))
        firsts.append(starts)
    level_of = np.repeat(np.arange(depth), [len(f) for f in firsts])
    order = np.lexsort(
        (level_of, np.concatenate(firsts))
    )  # pre-order: by first voxel, parents before children
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    for level in range(depth):
        positions.append(rank[level_of == level])
    return Octree(np.concatenate(masks)[order], codes, positions, firsts)


def decode_octree(data: np.ndarray, depth: int, most: int) -> Octree:
    """Parse a stream of node bytes that stand for at most `most` voxels.

    Raises:
        FormatError: nodes without children, bytes missing or left over, more voxels.
    """
    count = len(data)
    if count == 0:
        raise FormatError("an octree stream is empty")
    children = _CHILDREN[data]
    # sizes[h][i]: bytes of the subtree at i if i's children are h levels above voxels; capped past the end.
    sizes = [np.ones(count + 1, np.int64)]
    for _ in range(depth - 1):
        below = sizes[-1]
        at = np.arange(1, count + 1)
        for t in range(8):
            more = np.flatnonzero(children > t)
            at[more] = np.minimum(at[more] + below[np.minimum(at[more], count)], count + 1)
        sizes.append(np.append(at - np.arange(count), 1))
    if sizes[-1][0] != count:
        raise FormatError(f"an octree of depth {depth} does not use its {count} bytes exactly")
    position, codes = np.zeros(1, np.int64), np.zeros(1, np.int64)
    positions = []
    for level in range(depth):
        if not children[position].all():
            raise FormatError("an octree node has no children")
        positions.append(position)
        bits = _BITS[data[position]]  # [nodes, 8]
        parent, child = np.nonzero(bits)
        if len(parent) > most:
            raise FormatError(f"an octree holds more than the {most} voxels declared")
        codes = codes[parent] * 8 + child
        if level + 1 < depth:
            below = sizes[depth - 2 - level]
            at = position + 1
            places = np.empty(bits.shape, np.int64)
            for b in range(8):
                places[:, b] = at
                at = np.where(bits[:, b], at + below[np.minimum(at, count)], at)
            position = places[bits]
    prefixes = [codes >> (3 * (depth - level)) for level in range(depth)]
    firsts = [np.flatnonzero(np.diff(prefix, prepend=-1)) for prefix in prefixes]
    return Octree(data, codes, positions, firsts)


def predict_from_siblings(tree: Octree, rows: np.ndarray) -> np.ndarray:
    """Filter `parent`: the first row, then each node's later children minus the sibling before, uint8."""
    out = np.empty_like(rows)
    out[0] = rows[0]
    cursor = _cursors(tree)
    for level, (parent, rank, first) in enumerate(tree.families()):
        later = np.flatnonzero(rank > 0)
        place = cursor[tree.position[level][parent[later]]] + rank[later] - 1
        out[place] = rows[first[later]] - rows[first[later - 1]]
    return out


def restore_from_siblings(tree: Octree, filtered: np.ndarray) -> np.ndarray:
    """The inverse of `predict_from_siblings`."""
    cursor = _cursors(tree)
    value = filtered[:1]  # of the root
    for level, (parent, rank, _) in enumerate(tree.families()):
        step = np.zeros((len(parent), filtered.shape[1]), np.uint8)
        later = rank > 0
        step[later] = filtered[cursor[tree.position[level][parent[later]]] + rank[later] - 1]
        total = np.cumsum(step, axis=0, dtype=np.uint8)
        start = np.flatnonzero(rank == 0)  # each family's first child, whose step is 0
        value = total - total[start][parent] + value[parent]
    return value


def _cursors(tree: Octree) -> np.ndarray:
    """First row that each node of the stream writes its later children to."""
    extra = _CHILDREN[tree.data] - 1
    return 1 + np.cumsum(extra) - extra
