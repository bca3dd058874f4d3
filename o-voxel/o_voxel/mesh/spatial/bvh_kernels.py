"""Warp kernels of `bvh`; imported on first use only."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# (the kernel language's types are not Python's: `int(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def along_side(side: wp.vec3, to_point: wp.vec3) -> float:
    return wp.clamp(wp.dot(side, to_point) / wp.max(wp.length_sq(side), 1.0e-30), 0.0, 1.0)


@wp.func
def closest_on_triangle(a: wp.vec3, b: wp.vec3, c: wp.vec3, p: wp.vec3) -> wp.vec3:
    """Weights of the point of triangle abc nearest to p (Ericson, Real-Time Collision Detection, 5.1.5).

    Written so that a triangle without area still answers with weights of a nearest point on it.
    """
    ab = b - a
    ac = c - a
    ap = p - a
    d1 = wp.dot(ab, ap)
    d2 = wp.dot(ac, ap)
    if d1 <= 0.0 and d2 <= 0.0:
        return wp.vec3(1.0, 0.0, 0.0)
    bp = p - b
    d3 = wp.dot(ab, bp)
    d4 = wp.dot(ac, bp)
    if d3 >= 0.0 and d4 <= d3:
        return wp.vec3(0.0, 1.0, 0.0)
    vc = d1 * d4 - d3 * d2
    if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0 and d1 > d3:
        t = d1 / (d1 - d3)
        return wp.vec3(1.0 - t, t, 0.0)
    cp = p - c
    d5 = wp.dot(ab, cp)
    d6 = wp.dot(ac, cp)
    if d6 >= 0.0 and d5 <= d6:
        return wp.vec3(0.0, 0.0, 1.0)
    vb = d5 * d2 - d1 * d6
    if vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0 and d2 > d6:
        t = d2 / (d2 - d6)
        return wp.vec3(1.0 - t, 0.0, t)
    va = d3 * d6 - d5 * d4
    if va <= 0.0 and (d4 - d3) >= 0.0 and (d5 - d6) >= 0.0 and (d4 - d3) + (d5 - d6) > 0.0:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return wp.vec3(0.0, 1.0 - t, t)
    if wp.min(va, wp.min(vb, vc)) > 0.0:
        total = va + vb + vc
        return wp.vec3(va / total, vb / total, vc / total)
    # Rounding in a triangle without area: the point lies on a side.
    s = along_side(ab, ap)
    t = along_side(ac, ap)
    u = along_side(c - b, bp)
    ds = wp.length_sq(ap - s * ab)
    dt = wp.length_sq(ap - t * ac)
    du = wp.length_sq(bp - u * (c - b))
    if ds <= dt and ds <= du:
        return wp.vec3(1.0 - s, s, 0.0)
    if dt <= du:
        return wp.vec3(1.0 - t, 0.0, t)
    return wp.vec3(0.0, 1.0 - u, u)


@wp.kernel
def closest_kernel(
    start: int,
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    limits: wp.array(dtype=float),
    distance: wp.array(dtype=float),
    face: wp.array(dtype=int),
    barycentric: wp.array(dtype=wp.vec3),
):
    i = start + wp.tid()
    p = points[i]
    limit = limits[0]
    if limits.shape[0] > 1:
        limit = limits[i]
    query = wp.mesh_query_point_no_sign(mesh, p, limit)
    if query.result:
        m = wp.mesh_get(mesh)
        a = m.points[m.indices[3 * query.face]]
        b = m.points[m.indices[3 * query.face + 1]]
        c = m.points[m.indices[3 * query.face + 2]]
        w = closest_on_triangle(a, b, c, p)
        distance[i] = wp.length(w[0] * (a - p) + w[1] * (b - p) + w[2] * (c - p))
        face[i] = query.face
        barycentric[i] = w
    else:
        distance[i] = wp.inf
        face[i] = -1
        barycentric[i] = wp.vec3(0.0, 0.0, 0.0)


@wp.kernel
def cast_kernel(
    start: int,
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    limit: float,
    distance: wp.array(dtype=float),
    face: wp.array(dtype=int),
    barycentric: wp.array(dtype=wp.vec3),
):
    i = start + wp.tid()
    query = wp.mesh_query_ray(mesh, origins[i], directions[i], limit)
    if query.result:
        distance[i] = query.t
        face[i] = query.face
        barycentric[i] = wp.vec3(query.u, query.v, 1.0 - query.u - query.v)
    else:
        distance[i] = wp.inf
        face[i] = -1
        barycentric[i] = wp.vec3(0.0, 0.0, 0.0)


@wp.kernel
def crossings_kernel(
    start: int,
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    limit: float,
    step: float,
    most: int,
    crossings: wp.array(dtype=int),
):
    i = start + wp.tid()
    p = origins[i]
    d = directions[i]
    count = int(0)
    travelled = float(0.0)
    for _hit in range(most):
        query = wp.mesh_query_ray(mesh, p + d * travelled, d, limit - travelled)
        if not query.result:
            break
        count += 1
        travelled += query.t + step
    crossings[i] = count


@wp.kernel
def inside_kernel(
    start: int, mesh: wp.uint64, points: wp.array(dtype=wp.vec3), limit: float, inside: wp.array(dtype=int)
):
    i = start + wp.tid()
    query = wp.mesh_query_point_sign_winding_number(mesh, points[i], limit, 2.0, 0.5)
    inside[i] = 0
    if query.result and query.sign < 0.0:
        inside[i] = 1


@wp.kernel
def openness_kernel(
    start: int,
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    offset: float,
    limit: float,
    rays: int,
    openness: wp.array(dtype=float),
):
    """Share of rays, as many in a direction as its cosine, that leave a point of the surface unhindered."""
    i = start + wp.tid()
    n = normals[i]
    # a frame without branches: Duff et al., Building an Orthonormal Basis, Revisited, 2017
    sign = wp.where(n[2] < 0.0, -1.0, 1.0)
    a = -1.0 / (sign + n[2])
    b = n[0] * n[1] * a
    across = wp.vec3(1.0 + sign * n[0] * n[0] * a, sign * b, -sign * n[0])
    along = wp.vec3(b, sign + n[1] * n[1] * a, -n[1])
    origin = points[i] + n * offset
    turn = wp.randf(wp.rand_init(17, i))  # neighbours err differently, not alike
    hit = int(0)
    for k in range(rays):
        u = (float(k) + 0.5) / float(rays)
        angle = 6.2831853 * (float(k) * 0.6180340 + turn)
        flat = wp.sqrt(u)
        direction = across * (flat * wp.cos(angle)) + along * (flat * wp.sin(angle)) + n * wp.sqrt(1.0 - u)
        query = wp.mesh_query_ray(mesh, origin, direction, limit)
        if query.result:
            hit += 1
    openness[i] = 1.0 - float(hit) / float(rays)
