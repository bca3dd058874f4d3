"""Warp kernels over a `VoxelGrid`'s tables: finding a voxel's row, and trilinear sampling.

Imported on first use only.
"""

# mypy: ignore-errors
# (the kernel language's types are not Python's: `wp.int32(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})

vec8i = wp.types.vector(length=8, dtype=wp.int32)
vec8f = wp.types.vector(length=8, dtype=wp.float32)


@wp.struct
class GridTables:
    """The two levels of a `VoxelGrid`; `occupied` is searched when `dense` is 0, else `table` is read."""

    rows: wp.array(dtype=wp.int32)
    table: wp.array(dtype=wp.int32)
    occupied: wp.array(dtype=wp.int64)
    dense: wp.int32
    shift: wp.int32
    bricks_y: wp.int64
    bricks_z: wp.int64


@wp.func
def stored_row(grid: GridTables, x: wp.int32, y: wp.int32, z: wp.int32) -> wp.int32:
    """Row + 1 of a voxel, 0 where absent; coordinates at most two voxels outside the grid."""
    s = grid.shift
    pad = wp.int32(1) << s
    mask = pad - wp.int32(1)
    px, py, pz = x + pad, y + pad, z + pad
    brick = (wp.int64(px >> s) * grid.bricks_y + wp.int64(py >> s)) * grid.bricks_z + wp.int64(pz >> s)
    slot = wp.int32(0)
    if grid.dense != wp.int32(0):
        slot = grid.table[brick]
    else:
        at = wp.lower_bound(grid.occupied, brick)
        if at < grid.occupied.shape[0]:
            slot = wp.where(grid.occupied[at] == brick, at + 1, 0)
    if slot == wp.int32(0):
        return wp.int32(0)
    cell = ((((px & mask) << s) | (py & mask)) << s) | (pz & mask)
    return grid.rows[(wp.int64(slot) << wp.int64(3 * s)) + wp.int64(cell)]


@wp.func
def lower_corner(q: wp.float32, size: wp.int32) -> wp.float32:
    """floor(q - 1/2), kept within two voxels of the grid; not a number goes outside."""
    low = wp.floor(q - 0.5)
    if not (low >= -2.0):
        return wp.float32(-2.0)
    return wp.min(low, wp.float32(size))


@wp.kernel
def trilinear(
    start: int,
    grid: GridTables,
    size: wp.vec3i,
    points: wp.array(dtype=wp.vec3),
    attrs: wp.array2d(dtype=wp.float32),
    out: wp.array2d(dtype=wp.float32),
):
    q = start + wp.tid()
    p = points[q]
    bx, by, bz = lower_corner(p[0], size[0]), lower_corner(p[1], size[1]), lower_corner(p[2], size[2])
    fx, fy, fz = p[0] - 0.5 - bx, p[1] - 0.5 - by, p[2] - 0.5 - bz
    rows = vec8i()
    weights = vec8f()
    total = wp.float32(0.0)
    found = wp.int32(0)
    for corner in range(8):
        dx, dy, dz = corner >> 2, (corner >> 1) & 1, corner & 1
        row = stored_row(grid, wp.int32(bx) + dx, wp.int32(by) + dy, wp.int32(bz) + dz)
        if row > 0:
            wx = wp.where(dx == 1, fx, 1.0 - fx)
            wy = wp.where(dy == 1, fy, 1.0 - fy)
            wz = wp.where(dz == 1, fz, 1.0 - fz)
            rows[found] = row - 1
            weights[found] = wx * wy * wz
            total += wx * wy * wz
            found += 1
    scale = 1.0 / wp.max(total, 1.0e-12)
    for channel in range(attrs.shape[1]):
        value = wp.float32(0.0)
        for k in range(found):
            value += weights[k] * attrs[rows[k], channel]
        out[q, channel] = value * scale
