"""Warp kernels of `lattice` and `rebuild`; imported on first use only. Lengths are in lattice steps."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

from .bvh_kernels import closest_on_triangle

wp.set_module_options({"enable_backward": False})


@wp.func
def corner_of(points: wp.array(dtype=wp.vec3), faces: wp.array(dtype=int), face: int, slot: int) -> wp.vec3:
    return points[faces[3 * face + slot]]


@wp.func
def nearest_on_face(
    points: wp.array(dtype=wp.vec3), faces: wp.array(dtype=int), face: int, p: wp.vec3
) -> wp.vec3:
    a = corner_of(points, faces, face, 0)
    b = corner_of(points, faces, face, 1)
    c = corner_of(points, faces, face, 2)
    w = closest_on_triangle(a, b, c, p)
    return w[0] * a + w[1] * b + w[2] * c


@wp.func
def place_of(key: int, ny: int, nz: int) -> wp.vec3:
    xy = key / nz
    return wp.vec3(float(xy / ny), float(xy % ny), float(key - xy * nz))


@wp.func
def row_at(rows: wp.array(dtype=int), key: int) -> int:
    """-1 outside the lattice, where queries may lie."""
    row = int(-1)
    if key >= 0 and key < rows.shape[0]:
        row = rows[key]
    return row


@wp.func
def step_to(side: int, ny: int, nz: int) -> int:
    step = int(1)
    if side >= 4:
        step = ny * nz
    elif side >= 2:
        step = nz
    if side % 2 == 1:
        step = -step
    return step


@wp.kernel
def sow_kernel(
    start: int,
    points: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    ny: int,
    nz: int,
    near: wp.array(dtype=int),
):
    """The lowest face whose samples, a step apart, round to each lattice point."""
    face = start + wp.tid()
    a = corner_of(points, faces, face, 0)
    b = corner_of(points, faces, face, 1)
    c = corner_of(points, faces, face, 2)
    ab = wp.length(b - a)
    bc = wp.length(c - b)
    ca = wp.length(a - c)
    # a to b becomes the longest side, so that slivers take few samples
    if bc >= ab and bc >= ca:
        t = a
        a = b
        b = c
        c = t
        ab = bc
    elif ca >= ab and ca >= bc:
        t = b
        b = a
        a = c
        c = t
        ab = ca
    height = wp.length(wp.cross(b - a, c - a)) / wp.max(ab, 1.0e-9)
    rows = wp.max(int(wp.ceil(height)), 1)
    for j in range(rows + 1):
        v = float(j) / float(rows)
        columns = wp.max(int(wp.ceil(ab * (1.0 - v))), 1)
        for i in range(columns + 1):
            u = (1.0 - v) * float(i) / float(columns)
            p = a + u * (b - a) + v * (c - a)
            x = int(wp.floor(p[0] + 0.5))
            y = int(wp.floor(p[1] + 0.5))
            z = int(wp.floor(p[2] + 0.5))
            wp.atomic_min(near, (x * ny + y) * nz + z, face)


@wp.kernel
def spread_faces_kernel(
    start: int,
    points: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    keys: wp.array(dtype=int),
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    near: wp.array(dtype=int),
    distance: wp.array(dtype=float),
    fresh: wp.array(dtype=wp.uint8),
    near_out: wp.array(dtype=int),
    distance_out: wp.array(dtype=float),
    fresh_out: wp.array(dtype=wp.uint8),
):
    """Each lattice point takes the nearest of its own and its six neighbours' faces."""
    i = start + wp.tid()
    key = keys[i]
    best = near[i]
    least = distance[i]
    p = place_of(key, ny, nz)
    for side in range(6):
        row = rows[key + step_to(side, ny, nz)]
        if row >= 0 and fresh[row] != wp.uint8(0):
            face = near[row]
            if face != best:
                d = wp.length(nearest_on_face(points, faces, face, p) - p)
                if d < least:
                    least = d
                    best = face
    near_out[i] = best
    distance_out[i] = least
    changed = wp.uint8(0)
    if best != near[i]:
        changed = wp.uint8(1)
    fresh_out[i] = changed


@wp.kernel
def grow_kernel(
    start: int,
    waiting: wp.array(dtype=int),
    keys: wp.array(dtype=int),
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    clearance: wp.array(dtype=float),
    label: wp.array(dtype=wp.uint8),
    least: float,
    taken: wp.array(dtype=wp.uint8),
):
    """The label of each waiting point's roomiest labelled neighbour, if its own clearance is enough."""
    i = start + wp.tid()
    point = waiting[i]
    found = wp.uint8(0)
    if clearance[point] > least:
        room = float(-1.0)
        key = keys[point]
        for side in range(6):
            row = rows[key + step_to(side, ny, nz)]
            if row >= 0 and label[row] != wp.uint8(0) and clearance[row] > room:
                room = clearance[row]
                found = label[row]
    taken[i] = found


@wp.kernel
def own_distance_kernel(
    start: int,
    points: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    keys: wp.array(dtype=int),
    ny: int,
    nz: int,
    near: wp.array(dtype=int),
    distance: wp.array(dtype=float),
):
    i = start + wp.tid()
    distance[i] = wp.inf
    if near[i] >= 0:
        p = place_of(keys[i], ny, nz)
        distance[i] = wp.length(nearest_on_face(points, faces, near[i], p) - p)


@wp.kernel
def spread_seeds_kernel(
    start: int,
    keys: wp.array(dtype=int),
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    excess: wp.array(dtype=float),
    seed: wp.array(dtype=int),
    distance: wp.array(dtype=float),
    fresh: wp.array(dtype=wp.uint8),
    seed_out: wp.array(dtype=int),
    distance_out: wp.array(dtype=float),
    fresh_out: wp.array(dtype=wp.uint8),
):
    """Each lattice point takes the seed nearest to it, less the seed's own distance from the set's border."""
    i = start + wp.tid()
    best = seed[i]
    least = distance[i]
    changed = wp.uint8(0)
    if best != i:
        key = keys[i]
        p = place_of(key, ny, nz)
        last = int(-1)
        for dx in range(-1, 2):
            for dy in range(-1, 2):
                for dz in range(-1, 2):
                    row = rows[key + (dx * ny + dy) * nz + dz]
                    if row >= 0 and fresh[row] != wp.uint8(0):
                        other = seed[row]
                        if other != best and other != last:
                            last = other
                            d = wp.length(place_of(keys[other], ny, nz) - p) - excess[other]
                            if d < least:
                                least = d
                                best = other
        if best != seed[i]:
            changed = wp.uint8(1)
    seed_out[i] = best
    distance_out[i] = least
    fresh_out[i] = changed


@wp.kernel
def mixed_cells_kernel(
    start: int,
    keys: wp.array(dtype=int),
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    inside: wp.array(dtype=wp.uint8),
    mixed: wp.array(dtype=wp.uint8),
):
    """Whether the cell above each lattice point has all its corners in the band, of both kinds."""
    i = start + wp.tid()
    key = keys[i]
    count = int(0)
    known = int(0)
    for corner in range(8):
        row = rows[key + ((corner >> 2) * ny + ((corner >> 1) & 1)) * nz + (corner & 1)]
        if row >= 0:
            known += 1
            count += int(inside[row])
    mixed[i] = wp.uint8(0)
    if known == 8 and count > 0 and count < 8:
        mixed[i] = wp.uint8(1)


@wp.func
def bit(mask: int, corner: int) -> int:
    return (mask >> corner) & 1


@wp.func
def crossed(mask: int, a: int, b: int, c: int, d: int) -> int:
    """Corners to fill of a face whose diagonals a, d and b, c differ: both of the outer diagonal."""
    if bit(mask, a) == bit(mask, d) and bit(mask, b) == bit(mask, c) and bit(mask, a) != bit(mask, b):
        if bit(mask, a) == 0:
            return (1 << a) | (1 << d)
        return (1 << b) | (1 << c)
    return 0


@wp.kernel
def ambiguous_kernel(
    start: int,
    corners: wp.array(dtype=int),
    inside: wp.array(dtype=wp.uint8),
    fill: wp.array(dtype=wp.uint8),
):
    """Mark corners that must turn inside so that no cell's two kinds touch along a diagonal only."""
    i = start + wp.tid()
    mask = int(0)
    for corner in range(8):
        mask = mask | (int(inside[corners[8 * i + corner]]) << corner)
    wanted = crossed(mask, 0, 1, 2, 3) | crossed(mask, 4, 5, 6, 7)
    wanted = wanted | crossed(mask, 0, 1, 4, 5) | crossed(mask, 2, 3, 6, 7)
    wanted = wanted | crossed(mask, 0, 2, 4, 6) | crossed(mask, 1, 3, 5, 7)
    for corner in range(4):
        pair = (1 << corner) | (1 << (7 - corner))
        if mask == pair or mask == 255 - pair:
            wanted = wanted | (255 - mask)
    for corner in range(8):
        if bit(wanted, corner) == 1:
            fill[corners[8 * i + corner]] = wp.uint8(1)  # every writer writes the same


@wp.kernel
def nearest_kernel(
    start: int,
    points: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    near: wp.array(dtype=int),
    queries: wp.array(dtype=wp.vec3),
    nearest: wp.array(dtype=wp.vec3),
    found: wp.array(dtype=int),
):
    """The nearest point among the faces known at the corners of each query's cell; face -1 where none is."""
    i = start + wp.tid()
    q = queries[i]
    base = (int(wp.floor(q[0])) * ny + int(wp.floor(q[1]))) * nz + int(wp.floor(q[2]))
    least = float(wp.inf)
    best = q
    which = int(-1)
    for corner in range(8):
        row = row_at(rows, base + ((corner >> 2) * ny + ((corner >> 1) & 1)) * nz + (corner & 1))
        if row >= 0:
            face = near[row]
            if face >= 0 and face != which:
                p = nearest_on_face(points, faces, face, q)
                d = wp.length(p - q)
                if d < least:
                    least = d
                    best = p
                    which = face
    nearest[i] = best
    found[i] = which


@wp.kernel
def sample_kernel(
    start: int,
    rows: wp.array(dtype=int),
    ny: int,
    nz: int,
    values: wp.array(dtype=float),
    missing: float,
    queries: wp.array(dtype=wp.vec3),
    out: wp.array(dtype=float),
):
    """Trilinear values; lattice points outside the band count as `missing`."""
    i = start + wp.tid()
    q = queries[i]
    x = wp.floor(q[0])
    y = wp.floor(q[1])
    z = wp.floor(q[2])
    base = (int(x) * ny + int(y)) * nz + int(z)
    total = float(0.0)
    for corner in range(8):
        dx = corner >> 2
        dy = (corner >> 1) & 1
        dz = corner & 1
        weight = wp.abs(float(1 - dx) - (q[0] - x)) * wp.abs(float(1 - dy) - (q[1] - y))
        weight = weight * wp.abs(float(1 - dz) - (q[2] - z))
        row = row_at(rows, base + (dx * ny + dy) * nz + dz)
        value = missing
        if row >= 0:
            value = values[row]
        total += weight * value
    out[i] = total
