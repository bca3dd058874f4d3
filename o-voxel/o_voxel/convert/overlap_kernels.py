"""Warp kernels of `overlaps`: each triangle walks the voxels near its plane; imported on first use only."""

# mypy: ignore-errors
# (the kernel language's types are not Python's: `wp.int32(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

from ..sampling_kernels import GridTables, stored_row

wp.set_module_options({"enable_backward": False})

MARGIN = wp.constant(wp.float64(1.0e-2))
"""Voxels of slack around the plane's range in a column; covers the float32 rounding of lattice corners."""


@wp.func
def edges_touch(
    a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, n: wp.vec3d, low: wp.vec3d, high: wp.vec3d, axis: wp.int32
) -> bool:
    """Whether the triangle and the box overlap, seen along an axis."""
    i = (axis + 1) % 3
    j = (axis + 2) % 3
    sign = wp.where(n[axis] >= wp.float64(0.0), wp.float64(1.0), wp.float64(-1.0))
    for k in range(3):
        p = wp.where(k == 0, a, wp.where(k == 1, b, c))
        q = wp.where(k == 0, b, wp.where(k == 1, c, a))
        ni = -(q[j] - p[j]) * sign
        nj = (q[i] - p[i]) * sign
        ci = wp.where(ni > wp.float64(0.0), high[i], low[i])
        cj = wp.where(nj > wp.float64(0.0), high[j], low[j])
        if ni * (ci - p[i]) + nj * (cj - p[j]) < wp.float64(0.0):
            return False
    return True


@wp.func
def overlaps(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, n: wp.vec3d, low: wp.vec3d, high: wp.vec3d) -> bool:
    """Whether a triangle and a closed box overlap."""
    front = wp.vec3d()  # the box's corners furthest along and against the normal
    back = wp.vec3d()
    for k in range(3):
        front[k] = wp.where(n[k] > wp.float64(0.0), high[k], low[k])
        back[k] = wp.where(n[k] > wp.float64(0.0), low[k], high[k])
    if wp.dot(n, front - a) < wp.float64(0.0) or wp.dot(n, back - a) > wp.float64(0.0):
        return False
    return (
        edges_touch(a, b, c, n, low, high, 0)
        and edges_touch(a, b, c, n, low, high, 1)
        and edges_touch(a, b, c, n, low, high, 2)
    )


@wp.func
def lattice(cell: wp.int32, size: wp.float32) -> wp.float64:
    return wp.float64(wp.float32(cell) * size)


@wp.func
def walk(
    grid: GridTables,
    size: wp.vec3,
    a: wp.vec3d,
    b: wp.vec3d,
    c: wp.vec3d,
    n: wp.vec3d,
    first: wp.vec3i,
    stop: wp.vec3i,
    begin: wp.int64,
    voxel: wp.array(dtype=wp.int32),
) -> wp.int32:
    """Count the voxels that a triangle overlaps; with room in `voxel`, list their rows from `begin` on."""
    sx, sy, sz = wp.float64(size[0]), wp.float64(size[1]), wp.float64(size[2])
    corner = wp.vec3d(a[0] / sx, a[1] / sy, a[2] / sz)
    steep = wp.vec3d(n[0] * sx, n[1] * sy, n[2] * sz)
    # Columns run along the axis that the plane is steepest to, so that each holds few cells.
    w = wp.int32(2)
    if wp.abs(steep[0]) >= wp.abs(steep[1]) and wp.abs(steep[0]) >= wp.abs(steep[2]):
        w = wp.int32(0)
    elif wp.abs(steep[1]) >= wp.abs(steep[2]):
        w = wp.int32(1)
    if steep[w] == wp.float64(0.0):
        return wp.int32(0)
    u = (w + 1) % 3
    v = (w + 2) % 3
    slope_u, slope_v = steep[u] / steep[w], steep[v] / steep[w]
    zero = wp.float64(0.0)
    below = wp.min(-slope_u, zero) + wp.min(-slope_v, zero) - MARGIN
    above = wp.max(-slope_u, zero) + wp.max(-slope_v, zero) + MARGIN

    found = wp.int32(0)
    cell = wp.vec3i()
    for cu in range(first[u], stop[u]):
        for cv in range(first[v], stop[v]):
            base = corner[w] - slope_u * (wp.float64(cu) - corner[u]) - slope_v * (wp.float64(cv) - corner[v])
            from_w = wp.int32(wp.max(wp.floor(base + below), wp.float64(first[w])))
            to_w = wp.int32(wp.min(wp.floor(base + above), wp.float64(stop[w] - 1)))
            cell[u] = cu
            cell[v] = cv
            for cw in range(from_w, to_w + 1):
                cell[w] = cw
                row = stored_row(grid, cell[0], cell[1], cell[2])
                if row > 0:
                    low = wp.vec3d(
                        lattice(cell[0], size[0]), lattice(cell[1], size[1]), lattice(cell[2], size[2])
                    )
                    high = wp.vec3d(
                        lattice(cell[0] + 1, size[0]),
                        lattice(cell[1] + 1, size[1]),
                        lattice(cell[2] + 1, size[2]),
                    )
                    if overlaps(a, b, c, n, low, high):
                        if voxel.shape[0] > 0:
                            voxel[begin + wp.int64(found)] = row - 1
                        found += 1
    return found


@wp.kernel
def count_overlaps(
    start: int,
    grid: GridTables,
    size: wp.vec3,
    triangles: wp.array2d(dtype=wp.vec3d),
    normals: wp.array(dtype=wp.vec3d),
    first: wp.array(dtype=wp.vec3i),
    stop: wp.array(dtype=wp.vec3i),
    nowhere: wp.array(dtype=wp.int32),
    found: wp.array(dtype=wp.int32),
):
    f = start + wp.tid()
    found[f] = walk(
        grid, size, triangles[f, 0], triangles[f, 1], triangles[f, 2], normals[f], first[f], stop[f],
        wp.int64(0), nowhere,
    )  # fmt: skip


@wp.kernel
def list_overlaps(
    start: int,
    grid: GridTables,
    size: wp.vec3,
    triangles: wp.array2d(dtype=wp.vec3d),
    normals: wp.array(dtype=wp.vec3d),
    first: wp.array(dtype=wp.vec3i),
    stop: wp.array(dtype=wp.vec3i),
    begin: wp.array(dtype=wp.int64),
    voxel: wp.array(dtype=wp.int32),
):
    f = start + wp.tid()
    walk(
        grid, size, triangles[f, 0], triangles[f, 1], triangles[f, 2], normals[f], first[f], stop[f],
        begin[f], voxel,
    )  # fmt: skip
