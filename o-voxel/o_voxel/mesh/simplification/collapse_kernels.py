"""Warp kernels of `collapse`; imported on first use only."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# (the kernel language's types are not Python's: `int(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})

EQUILATERAL = wp.constant(4.0 * 1.7320508)


@wp.kernel
def cost_kernel(
    start: int,
    vertices: wp.array(dtype=wp.vec3),
    faces: wp.array(dtype=int),
    first_corner: wp.array(dtype=int),
    corners: wp.array(dtype=int),
    on_boundary: wp.array(dtype=wp.uint8),
    edges: wp.array(dtype=int),
    length_weight: float,
    skinny_weight: float,
    cost: wp.array(dtype=float),
    position: wp.array(dtype=wp.vec3),
):
    """Cost and position of collapsing each edge; infinite where a triangle that stays would turn over."""
    e = start + wp.tid()
    v0 = edges[2 * e]
    v1 = edges[2 * e + 1]
    p0 = vertices[v0]
    p1 = vertices[v1]
    p = 0.5 * (p0 + p1)
    if on_boundary[v0] != on_boundary[v1]:
        if on_boundary[v0] != wp.uint8(0):
            p = p0
        else:
            p = p1
    quadric = float(0.0)
    skinny = float(0.0)
    staying = float(0.0)
    flips = int(0)
    for side in range(2):
        v = v0
        if side == 1:
            v = v1
        for k in range(first_corner[v], first_corner[v + 1]):
            corner = corners[k]
            face = 3 * (corner // 3)
            second = faces[face + (corner + 1) % 3]
            third = faces[face + (corner + 2) % 3]
            a = vertices[v]
            b = vertices[second]
            c = vertices[third]
            before = wp.cross(b - a, c - a)
            # Distances are taken from a corner of the face: exact near it, wherever the mesh lies.
            d = wp.dot(wp.normalize(before), p - a)
            quadric += d * d
            other = v0 + v1 - v
            if second != other and third != other:
                after = wp.cross(b - p, c - p)
                if wp.dot(before, after) < 0.0:
                    flips = 1
                sides = wp.length_sq(b - p) + wp.length_sq(c - p) + wp.length_sq(c - b)
                shape = float(0.0)
                if sides > 0.0:
                    shape = EQUILATERAL * 0.5 * wp.length(after) / sides
                skinny += 1.0 - wp.clamp(shape, 0.0, 1.0)
                staying += 1.0
    length = wp.length_sq(p1 - p0)
    if staying > 0.0:
        skinny = skinny / staying
    position[e] = p
    cost[e] = quadric + length_weight * length + skinny_weight * skinny * length
    if flips == 1:
        cost[e] = wp.inf
