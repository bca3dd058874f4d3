"""The two codecs of glTF's EXT_meshopt_compression, version 0 of attributes and 1 of triangles, and a filter.

Written from the extension's specification of the bit streams; every engine's decoder reads them. Attributes
are byte planes of differences in groups of 16; triangles are codes into the edges and vertices seen last.
"""

from __future__ import annotations

import numpy as np

_GROUP = 16
_LARGEST_BLOCK = 8192  # bytes
_SHORT = (0x00, 0x76, 0x87, 0x56, 0x67, 0x78, 0xA9, 0x86, 0x65, 0x89, 0x68, 0x98, 0x01, 0x69, 0x00, 0x00)
"""Pairs of vertex codes that take no byte of their own."""


def encode_attributes(data: np.ndarray) -> bytes:
    """The stream of mode ATTRIBUTES for elements [N, stride] uint8; stride a multiple of 4, at most 256."""
    count, stride = data.shape
    per_block = min((_LARGEST_BLOCK // stride) & ~(_GROUP - 1), 256)
    before = np.concatenate([data[:1], data[:-1]])
    delta = (data - before).view(np.int8)
    planes = ((delta << 1) ^ (delta >> 7)).view(np.uint8).T  # zigzag, [stride, N]
    groups = -(-count // _GROUP)
    planes = np.pad(planes, ((0, 0), (0, groups * _GROUP - count))).reshape(stride, groups, _GROUP)
    modes, sizes, payload = _group_bytes(planes)
    parts = [b"\xa0"]
    step = per_block // _GROUP
    for first in range(0, groups, step):
        last = min(first + step, groups)
        for plane in range(stride):
            mode = modes[plane, first:last]
            packed = np.pad(mode, (0, -len(mode) % 4)).reshape(-1, 4)
            parts.append((packed << np.array([0, 2, 4, 6])).sum(axis=1).astype(np.uint8).tobytes())
            used = np.arange(payload.shape[2]) < sizes[plane, first:last, None]
            parts.append(payload[plane, first:last][used].tobytes())
    parts.append(b"\0" * max(0, 32 - stride))
    parts.append(data[0].tobytes())
    return b"".join(parts)


def _group_bytes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mode [P, G], bytes used [P, G] and bytes [P, G, 24] of each group of 16 values [P, G, 16]."""
    shape = values.shape[:2]
    payload = np.zeros((4, *shape, 24), np.uint8)
    used = np.zeros((4, *shape), np.int64)
    used[0] = np.where((values == 0).all(axis=2), 0, 99)
    for mode, bits in ((1, 2), (2, 4)):
        sentinel = (1 << bits) - 1
        escaped = values >= sentinel
        small = np.minimum(values, sentinel).reshape(*shape, -1, 8 // bits)
        shifts = np.arange(8 // bits - 1, -1, -1) * bits
        head = (small << shifts).sum(axis=3).astype(np.uint8)
        payload[mode, ..., : head.shape[2]] = head
        order = np.argsort(~escaped, axis=2, kind="stable")
        tail = np.take_along_axis(values, order, axis=2)
        payload[mode, ..., head.shape[2] : head.shape[2] + _GROUP] = tail
        used[mode] = head.shape[2] + escaped.sum(axis=2)
    payload[3, ..., :_GROUP], used[3] = values, _GROUP
    best = used.argmin(axis=0)
    chosen = np.take_along_axis(payload, best[None, ..., None], axis=0)[0]
    return best, np.take_along_axis(used, best[None], axis=0)[0], chosen


def octahedral(normals: np.ndarray) -> np.ndarray:
    """Unit vectors [N, 3] as int8 [N, 4] for the filter OCTAHEDRAL: the two coordinates, 127, nothing."""
    x, y, z = (normals / np.abs(normals).sum(axis=1, keepdims=True).clip(1e-12)).T
    below = z < 0
    folded = [
        np.where(below, (1 - np.abs(other)) * np.where(own < 0, -1, 1), own)
        for own, other in ((x, y), (y, x))
    ]
    packed = np.zeros((len(normals), 4), np.int8)
    packed[:, :2] = np.rint(np.stack(folded, axis=1) * 127)
    packed[:, 2] = 127
    return packed


def walk_order(faces: np.ndarray) -> np.ndarray:
    """Faces [F, 3] reordered so that each shares an edge with one just before it, where it can.

    The winding stays; the corner with which a face begins may change.
    """
    count = int(faces.max()) + 1
    start, end = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, axis=1).reshape(-1).astype(np.int64)
    key, back = start * count + end, end * count + start
    order = np.argsort(key, kind="stable")
    place = np.minimum(np.searchsorted(key[order], back), len(key) - 1)
    other = np.where(key[order][place] == back, order[place], -1).tolist()  # half edge across, or none
    visited = bytearray(len(faces))
    result: list[int] = []
    stack: list[int] = []
    for seed in range(len(faces)):
        if visited[seed]:
            continue
        visited[seed] = 1
        result.append(seed)
        stack.extend((3 * seed + 2, 3 * seed + 1, 3 * seed))
        while stack:
            half = other[stack.pop()]
            if half < 0 or visited[half // 3]:
                continue
            face = half // 3
            visited[face] = 1
            result.append(face)
            corner = half % 3
            stack.append(3 * face + (corner + 1) % 3)
            stack.append(3 * face + (corner + 2) % 3)
    return faces[np.array(result)]


def by_first_use(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces [F, 3] over vertices renumbered in the order of their use, and the old number of each [U]."""
    used, first, inverse = np.unique(faces.reshape(-1), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(-1)].reshape(-1, 3).astype(np.uint32), used[order]


def encode_triangles(faces: np.ndarray) -> bytes:
    """The stream of mode TRIANGLES for faces [F, 3]; small for `walk_order` and `by_first_use`."""
    codes, data = bytearray(), bytearray()
    edges: dict[tuple[int, int], int] = {}  # half edge to the number of its latest push
    vertices: dict[int, int] = {}
    pushed_edges = pushed = following = last = 0
    short = {pair: index for index, pair in enumerate(_SHORT[:14])}

    def explicit(vertex: int) -> None:
        delta = vertex - last
        value = (delta << 1) ^ (delta >> 31)
        value &= 0xFFFFFFFF
        while value > 127:
            data.append(value & 127 | 128)
            value >>= 7
        data.append(value)

    for a, b, c in faces.tolist():
        oldest = pushed_edges - 15
        at = [edges.get(edge, -1) for edge in ((a, b), (b, c), (c, a))]
        newest = max(at)
        if newest >= 0 and newest >= oldest:
            turn = at.index(newest)
            if turn == 1:
                a, b, c = b, c, a
            elif turn == 2:
                a, b, c = c, a, b
            seen = vertices.get(c, -1)
            age = pushed - 1 - seen if seen >= 0 else -1
            if 1 <= age < 13:
                code = age
            elif c == following:
                code = 0
                following += 1
            elif c + 1 == last:
                code, last = 13, c
            elif c == last + 1:
                code, last = 14, c
            else:
                code = 15
            codes.append((pushed_edges - 1 - newest) << 4 | code)
            if code == 15:
                explicit(c)
                last = c
            if code == 0 or code >= 13:
                vertices[c] = pushed
                pushed += 1
            edges[(c, b)] = pushed_edges
            edges[(a, c)] = pushed_edges + 1
            pushed_edges += 2
            continue
        if b == following:
            a, b, c = b, c, a
        elif c == following:
            a, b, c = c, a, b
        found = []
        if a == following:
            first_code = 0
            following += 1
        else:
            first_code = 15
        for vertex in (b, c):
            seen = vertices.get(vertex, -1)
            age = pushed - 1 - seen if seen >= 0 else 99
            if age < 14:
                found.append(age + 1)
            elif vertex == following:
                found.append(0)
                following += 1
            else:
                found.append(15)
        pair = found[0] << 4 | found[1]
        if first_code == 0 and pair in short:
            codes.append(0xF0 | short[pair])
        else:
            codes.append(0xFE | (first_code & 1))
            data.append(pair)
        for vertex, code in ((a, first_code), (b, found[0]), (c, found[1])):
            if code == 15:
                explicit(vertex)
                last = vertex
            if code in (0, 15):
                vertices[vertex] = pushed
                pushed += 1
        for edge in ((b, a), (c, b), (a, c)):
            edges[edge] = pushed_edges
            pushed_edges += 1
    return b"\xe1" + bytes(codes) + bytes(data) + bytes(_SHORT)
