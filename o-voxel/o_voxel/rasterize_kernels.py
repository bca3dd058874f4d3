"""Warp kernel of `rasterize`; imported on first use only."""

# mypy: ignore-errors
# (the kernel language's types are not Python's: `wp.int32(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def nearest_cube(
    start: int,
    tree: wp.uint64,
    origin: wp.vec3,
    low: wp.array(dtype=wp.vec3),
    high: wp.array(dtype=wp.vec3),
    rays: wp.array(dtype=wp.vec3),
    voxel: wp.array(dtype=wp.int32),
    depth: wp.array(dtype=wp.float32),
):
    r = start + wp.tid()
    ray = rays[r]
    best = wp.float32(1.0e30)
    found = wp.int32(-1)
    query = wp.bvh_query_ray(tree, origin, ray)
    index = wp.int32(0)
    while wp.bvh_query_next(query, index):
        enter = wp.float32(0.0)
        leave = wp.float32(1.0e30)
        for axis in range(3):
            a = (low[index][axis] - origin[axis]) / ray[axis]
            b = (high[index][axis] - origin[axis]) / ray[axis]
            if ray[axis] == 0.0:
                inside = low[index][axis] <= origin[axis] and origin[axis] <= high[index][axis]
                a = wp.where(inside, -1.0e30, 1.0e30)
                b = 1.0e30
            enter = wp.max(enter, wp.min(a, b))
            leave = wp.min(leave, wp.max(a, b))
        # Equal distances (a shared face) go to the voxel listed first, whatever the tree's order.
        if enter <= leave and (enter < best or (enter == best and index < found)):
            best = enter
            found = index
    if found >= 0:
        voxel[r] = found
        depth[r] = best
