"""Warp kernels of `overlaps`: each triangle walks the voxels near its plane; imported on first use only."""

# mypy: ignore-errors
# (the kernel language's types are not Python's: `wp.int32(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

from ..sampling_kernels import GridTables, stored_row

wp.set_module_options({"enable_backward": False, "fuse_fp": False})  # touching is decided by the last bit

MARGIN = wp.constant(1.0e-2)
"""Voxels of slack around the plane's range in a column; covers the float32 rounding of lattice corners."""


@wp.func
def edges_touch(
    a: wp.vec3, b: wp.vec3, c: wp.vec3, n: wp.vec3, low: wp.vec3, size: wp.vec3, axis: wp.int32
) -> bool:
    """Whether the triangle and the box overlap, seen along an axis."""
    i = (axis + 1) % 3
    j = (axis + 2) % 3
    sign = wp.where(n[axis] >= 0.0, 1.0, -1.0)
    for k in range(3):
        p = wp.where(k == 0, a, wp.where(k == 1, b, c))
        q = wp.where(k == 0, b, wp.where(k == 1, c, a))
        ni = -(q[j] - p[j]) * sign
        nj = (q[i] - p[i]) * sign
        furthest = -(ni * p[i] + nj * p[j]) + wp.max(ni * size[i], 0.0) + wp.max(nj * size[j], 0.0)
        if (ni * low[i] + nj * low[j]) + furthest < 0.0:
            return False
    return True


@wp.func
def overlaps(a: wp.vec3, b: wp.vec3, c: wp.vec3, n: wp.vec3, low: wp.vec3, size: wp.vec3) -> bool:
    """Whether a triangle and a closed box overlap."""
    ahead = wp.vec3()  # the box's corner furthest along the normal, from `low`
    for k in range(3):
        ahead[k] = wp.where(n[k] > 0.0, size[k], 0.0)
    at = wp.dot(n, low)
    if (at + wp.dot(n, ahead - a)) * (at + wp.dot(n, (size - ahead) - a)) > 0.0:
        return False
    return (
        edges_touch(a, b, c, n, low, size, 0)
        and edges_touch(a, b, c, n, low, size, 1)
        and edges_touch(a, b, c, n, low, size, 2)
    )


@wp.func
def walk(
    grid: GridTables,
    size: wp.vec3,
    a: wp.vec3,
    b: wp.vec3,
    c: wp.vec3,
    n: wp.vec3,
    first: wp.vec3i,
    stop: wp.vec3i,
    begin: wp.int64,
    voxel: wp.array(dtype=wp.int32),
) -> wp.int32:
    """Count the voxels that a triangle overlaps; with room in `voxel`, list their rows from `begin` on."""
    corner = wp.cw_div(a, size)
    steep = wp.cw_mul(n, size)
    # Columns run along the axis that the plane is steepest to, so that each holds few cells.
    w = wp.int32(2)
    if wp.abs(steep[0]) >= wp.abs(steep[1]) and wp.abs(steep[0]) >= wp.abs(steep[2]):
        w = wp.int32(0)
    elif wp.abs(steep[1]) >= wp.abs(steep[2]):
        w = wp.int32(1)
    if steep[w] == 0.0:
        return wp.int32(0)
    u = (w + 1) % 3
    v = (w + 2) % 3
    slope_u, slope_v = steep[u] / steep[w], steep[v] / steep[w]
    below = wp.min(-slope_u, 0.0) + wp.min(-slope_v, 0.0) - MARGIN
    above = wp.max(-slope_u, 0.0) + wp.max(-slope_v, 0.0) + MARGIN

    found = wp.int32(0)
    cell = wp.vec3i()
    for cu in range(first[u], stop[u]):
        for cv in range(first[v], stop[v]):
            base = corner[w] - slope_u * (float(cu) - corner[u]) - slope_v * (float(cv) - corner[v])
            # Compared as floats first: far triangles overflow an index, and NaN keeps the whole range.
            lowest = wp.floor(base + below)
            highest = wp.floor(base + above)
            from_w = first[w]
            to_w = stop[w] - 1
            if lowest > float(from_w):
                from_w = wp.int32(wp.min(lowest, float(stop[w])))
            if highest < float(to_w):
                to_w = wp.int32(wp.max(highest, float(first[w] - 1)))
            cell[u] = cu
            cell[v] = cv
            for cw in range(from_w, to_w + 1):
                cell[w] = cw
                row = stored_row(grid, cell[0], cell[1], cell[2])
                if row > 0:
                    low = wp.cw_mul(wp.vec3(float(cell[0]), float(cell[1]), float(cell[2])), size)
                    if overlaps(a, b, c, n, low, size):
                        if voxel.shape[0] > 0:
                            voxel[begin + wp.int64(found)] = row - 1
                        found += 1
    return found


@wp.kernel
def list_overlaps(
    start: int,
    grid: GridTables,
    size: wp.vec3,
    triangles: wp.array2d(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    first: wp.array(dtype=wp.vec3i),
    stop: wp.array(dtype=wp.vec3i),
    begin: wp.array(dtype=wp.int64),
    voxel: wp.array(dtype=wp.int32),
    found: wp.array(dtype=wp.int32),
):
    f = start + wp.tid()
    found[f] = walk(
        grid, size, triangles[f, 0], triangles[f, 1], triangles[f, 2], normals[f], first[f], stop[f],
        begin[f], voxel,
    )  # fmt: skip
