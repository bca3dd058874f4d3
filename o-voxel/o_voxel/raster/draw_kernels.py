"""The raster kernels, written once in Warp for CPU and CUDA; imported inside the calls that launch them.

Vertices are snapped to 1/256 pixel and edge functions are taken in double, where these products are exact, so
that triangles sharing an edge cover each pixel exactly once whatever their winding. Visibility is the minimum
of a 64-bit key, depth above and face id below: equal depths go to the lower face id, so the result does not
depend on the order of execution.
"""

# mypy: ignore-errors
# (Warp's kernel language is not Python's type system.)

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

SUBPIXELS = wp.constant(wp.float64(256.0))
HALF = wp.constant(wp.float64(128.0))
FINE = wp.constant(1.0 / 256.0)
EMPTY = 0x7FFFFFFFFFFFFFFF
EMPTY_KEY = wp.constant(wp.int64(EMPTY))


@wp.func
def pack(depth: wp.float32, face: wp.int32) -> wp.int64:
    """A key that sorts by depth, then by face id."""
    bits = wp.cast(depth + 0.0, wp.int32)
    if bits < 0:
        bits = bits ^ 0x7FFFFFFF
    return (wp.int64(bits) << wp.int64(32)) | wp.int64(face)


@wp.func
def key_face(key: wp.int64) -> wp.int32:
    return wp.int32(key & wp.int64(0xFFFFFFFF))


@wp.func
def key_depth(key: wp.int64) -> wp.float32:
    bits = wp.int32(key >> wp.int64(32))
    if bits < 0:
        bits = bits ^ 0x7FFFFFFF
    return wp.cast(bits, wp.float32)


@wp.func
def snap(x: wp.float64, size: wp.int32) -> wp.float64:
    """Clip coordinate -1..1 to subpixels, 0 at the centre of pixel 0."""
    return wp.float64(wp.float32(wp.round((x + wp.float64(1.0)) * wp.float64(size) * HALF))) - HALF


@wp.func
def to_screen(p: wp.vec4, height: wp.int32, width: wp.int32) -> wp.vec3d:
    """Subpixel x, y and z/w of a clip position in front of the near plane."""
    w = wp.float64(p[3])
    x = snap(wp.float64(p[0]) / w, width)
    y = snap(wp.float64(p[1]) / w, height)
    return wp.vec3d(x, y, wp.float64(p[2]) / w)


@wp.kernel
def project(
    start: wp.int32,
    positions: wp.array(dtype=wp.vec4),
    height: wp.int32,
    width: wp.int32,
    screen: wp.array(dtype=wp.vec4),
) -> None:
    """Clip position to (subpixel x, y, z/w, code): 0 in front of the near plane, 1 behind, 8 unusable."""
    i = start + wp.tid()
    p = positions[i]
    total = p[0] + p[1] + p[2] + p[3]
    if not wp.isfinite(total):
        screen[i] = wp.vec4(0.0, 0.0, 0.0, 8.0)
    elif p[3] <= 0.0 or p[2] < -p[3]:
        screen[i] = wp.vec4(0.0, 0.0, 0.0, 1.0)
    else:
        s = to_screen(p, height, width)
        screen[i] = wp.vec4(wp.float32(s[0]), wp.float32(s[1]), wp.float32(s[2]), 0.0)


@wp.func
def owns(dx: wp.float64, dy: wp.float64) -> wp.bool:
    """Which of the two triangles along an edge gets the points exactly on it."""
    zero = wp.float64(0.0)
    return dy > zero or (dy == zero and dx < zero)


@wp.func
def pixel_low(x: wp.float64, size: wp.int32) -> wp.int32:
    """First pixel centre at or after subpixel x, not below 0."""
    return wp.int32(wp.clamp(wp.ceil(x / SUBPIXELS), wp.float64(0.0), wp.float64(size)))


@wp.func
def pixel_high(x: wp.float64, size: wp.int32) -> wp.int32:
    """One past the last pixel centre at or before subpixel x, not above size."""
    return wp.int32(wp.clamp(wp.floor(x / SUBPIXELS) + wp.float64(1.0), wp.float64(0.0), wp.float64(size)))


@wp.func
def draw(
    a: wp.vec3d,
    b_in: wp.vec3d,
    c_in: wp.vec3d,
    face: wp.int32,
    lane: wp.int32,
    lanes: wp.int32,
    height: wp.int32,
    width: wp.int32,
    behind: wp.array(dtype=wp.int64),
    keys: wp.array(dtype=wp.int64),
) -> wp.int32:
    """Put a screen triangle into the key buffer; with `behind`, only where it lies after those keys."""
    b = b_in
    c = c_in
    y0 = pixel_low(wp.min(a[1], wp.min(b[1], c[1])), height)
    y1 = pixel_high(wp.max(a[1], wp.max(b[1], c[1])), height)
    x0 = pixel_low(wp.min(a[0], wp.min(b[0], c[0])), width)
    x1 = pixel_high(wp.max(a[0], wp.max(b[0], c[0])), width)
    if y0 >= y1 or x0 >= x1:
        return 0
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if area == wp.float64(0.0):
        return 0
    if area < wp.float64(0.0):
        b = c_in
        c = b_in
        area = -area
    # edge values are whole numbers: half of one more lets in the points on an edge that is the triangle's own
    bias_a = wp.where(owns(c[0] - b[0], c[1] - b[1]), wp.float64(0.5), wp.float64(0.0))
    bias_b = wp.where(owns(a[0] - c[0], a[1] - c[1]), wp.float64(0.5), wp.float64(0.0))
    bias_c = wp.where(owns(b[0] - a[0], b[1] - a[1]), wp.float64(0.5), wp.float64(0.0))
    z_low = wp.min(a[2], wp.min(b[2], c[2]))
    z_high = wp.max(a[2], wp.max(b[2], c[2]))
    px = wp.float64(x0) * SUBPIXELS
    step_a = (b[1] - c[1]) * SUBPIXELS
    step_b = (c[1] - a[1]) * SUBPIXELS
    step_c = (a[1] - b[1]) * SUBPIXELS
    zero = wp.float64(0.0)
    y = y0 + lane
    while y < y1:
        py = wp.float64(y) * SUBPIXELS
        ea = (c[0] - b[0]) * (py - b[1]) - (c[1] - b[1]) * (px - b[0])
        eb = (a[0] - c[0]) * (py - c[1]) - (a[1] - c[1]) * (px - c[0])
        ec = (b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])
        for x in range(x0, x1):
            if ea + bias_a > zero and eb + bias_b > zero and ec + bias_c > zero:
                z = wp.clamp(a[2] + (eb * (b[2] - a[2]) + ec * (c[2] - a[2])) / area, z_low, z_high)
                if z >= wp.float64(-1.0) and z <= wp.float64(1.0):
                    pixel = y * width + x
                    key = pack(wp.float32(z), face)
                    if behind.shape[0] == 0 or key > behind[pixel]:
                        wp.atomic_min(keys, pixel, key)
            ea += step_a
            eb += step_b
            ec += step_c
        y += lanes
    return 0


@wp.func
def near_point(front: wp.vec4, back: wp.vec4, height: wp.int32, width: wp.int32) -> wp.vec3d:
    """Where the edge from a vertex in front to one behind meets the near plane z = -w, in screen space.

    Always taken from the front vertex, so that both triangles of an edge get the same point.
    """
    df = wp.float64(front[2]) + wp.float64(front[3])
    db = wp.float64(back[2]) + wp.float64(back[3])
    t = df / (df - db)
    x = wp.float64(front[0]) + t * (wp.float64(back[0]) - wp.float64(front[0]))
    y = wp.float64(front[1]) + t * (wp.float64(back[1]) - wp.float64(front[1]))
    w = wp.float64(front[3]) + t * (wp.float64(back[3]) - wp.float64(front[3]))
    w = wp.max(w, wp.float64(1.0e-12))
    return wp.vec3d(snap(x / w, width), snap(y / w, height), wp.float64(-1.0))


@wp.func
def widen(s: wp.vec4) -> wp.vec3d:
    return wp.vec3d(wp.float64(s[0]), wp.float64(s[1]), wp.float64(s[2]))


@wp.func
def misses(a: wp.vec4, b: wp.vec4, c: wp.vec4, height: wp.int32, width: wp.int32) -> wp.bool:
    """Whether no pixel centre lies in the bounding box, as for most of the faces of a dense mesh.

    Screen coordinates are multiples of 1/256 that single precision holds exactly, and so are their quotients.
    """
    x0 = wp.ceil(wp.min(a[0], wp.min(b[0], c[0])) * FINE)
    x1 = wp.floor(wp.max(a[0], wp.max(b[0], c[0])) * FINE)
    y0 = wp.ceil(wp.min(a[1], wp.min(b[1], c[1])) * FINE)
    y1 = wp.floor(wp.max(a[1], wp.max(b[1], c[1])) * FINE)
    return x0 > x1 or y0 > y1 or x1 < 0.0 or y1 < 0.0 or x0 >= float(width) or y0 >= float(height)


@wp.kernel
def draw_faces(
    start: wp.int32,
    lanes: wp.int32,
    height: wp.int32,
    width: wp.int32,
    positions: wp.array(dtype=wp.vec4),
    screen: wp.array(dtype=wp.vec4),
    faces: wp.array2d(dtype=wp.int32),
    behind: wp.array(dtype=wp.int64),
    keys: wp.array(dtype=wp.int64),
) -> None:
    """One thread a face and lane; lanes share the rows of a face (many lanes where there are few faces)."""
    t = wp.tid()
    face = start + t // lanes
    lane = t % lanes
    i = faces[face, 0]
    j = faces[face, 1]
    k = faces[face, 2]
    a = screen[i]
    b = screen[j]
    c = screen[k]
    code = a[3] + b[3] + c[3]
    if code == 0.0 and misses(a, b, c, height, width):
        return
    if code == 0.0:
        draw(widen(a), widen(b), widen(c), face, lane, lanes, height, width, behind, keys)
    elif code < 3.0:
        # turn the corners so that the one that is alone on its side of the near plane comes first
        alone = wp.where(code == 1.0, 1.0, 0.0)
        if b[3] == alone:
            i = faces[face, 1]
            j = faces[face, 2]
            k = faces[face, 0]
        elif c[3] == alone:
            i = faces[face, 2]
            j = faces[face, 0]
            k = faces[face, 1]
        p = positions[i]
        q = positions[j]
        r = positions[k]
        if alone == 0.0:
            tip = widen(screen[i])
            pq = near_point(p, q, height, width)
            pr = near_point(p, r, height, width)
            draw(tip, pq, pr, face, lane, lanes, height, width, behind, keys)
        else:
            left = widen(screen[j])
            right = widen(screen[k])
            qp = near_point(q, p, height, width)
            rp = near_point(r, p, height, width)
            draw(left, right, rp, face, lane, lanes, height, width, behind, keys)
            draw(left, rp, qp, face, lane, lanes, height, width, behind, keys)


@wp.kernel
def resolve(
    start: wp.int32,
    positions: wp.array(dtype=wp.vec4),
    faces: wp.array2d(dtype=wp.int32),
    keys: wp.array(dtype=wp.int64),
    height: wp.int32,
    width: wp.int32,
    face_id: wp.array(dtype=wp.int32),
    barycentric: wp.array(dtype=wp.vec2),
    depth: wp.array(dtype=wp.float32),
) -> None:
    """Keys to face id, depth and perspective-correct barycentrics; homogeneous: clipping is no matter."""
    pixel = start + wp.tid()
    key = keys[pixel]
    if key == EMPTY_KEY:
        face_id[pixel] = -1
        barycentric[pixel] = wp.vec2(0.0, 0.0)
        depth[pixel] = 1.0
        return
    face = key_face(key)
    face_id[pixel] = face
    depth[pixel] = key_depth(key)
    x = (wp.float64(pixel % width) + wp.float64(0.5)) / wp.float64(width) * wp.float64(2.0) - wp.float64(1.0)
    y = (wp.float64(pixel // width) + wp.float64(0.5)) / wp.float64(height) * wp.float64(2.0) - wp.float64(
        1.0
    )
    # each corner relative to the pixel's ray: small numbers, hence no cancellation for tiny triangles
    p = relative(positions[faces[face, 0]], x, y)
    q = relative(positions[faces[face, 1]], x, y)
    r = relative(positions[faces[face, 2]], x, y)
    ea = q[0] * r[1] - q[1] * r[0]
    eb = r[0] * p[1] - r[1] * p[0]
    ec = p[0] * q[1] - p[1] * q[0]
    total = ea + eb + ec
    if total < wp.float64(0.0):
        ea = -ea
        eb = -eb
        ec = -ec
        total = -total
    # snapping may put the centre a hair outside the exact triangle
    ea = wp.max(ea, wp.float64(0.0))
    eb = wp.max(eb, wp.float64(0.0))
    ec = wp.max(ec, wp.float64(0.0))
    total = ea + eb + ec
    if total > wp.float64(0.0):
        barycentric[pixel] = wp.vec2(wp.float32(ea / total), wp.float32(eb / total))
    else:
        barycentric[pixel] = wp.vec2(wp.float32(1.0 / 3.0), wp.float32(1.0 / 3.0))


@wp.func
def relative(p: wp.vec4, x: wp.float64, y: wp.float64) -> wp.vec2d:
    w = wp.float64(p[3])
    return wp.vec2d(wp.float64(p[0]) - x * w, wp.float64(p[1]) - y * w)


@wp.func
def nearest_on_segment(a: wp.vec2d, b: wp.vec2d) -> wp.float64:
    """Parameter in 0..1 of the point of segment ab nearest to the origin."""
    d = b - a
    length = wp.dot(d, d)
    if length <= wp.float64(0.0):
        return wp.float64(0.0)
    return wp.clamp(-wp.dot(a, d) / length, wp.float64(0.0), wp.float64(1.0))


@wp.func
def nearest_weights(a: wp.vec2d, b: wp.vec2d, c: wp.vec2d) -> wp.vec3d:
    """Barycentrics of the point of triangle abc nearest to the origin."""
    zero = wp.float64(0.0)
    one = wp.float64(1.0)
    ea = b[0] * c[1] - b[1] * c[0]
    eb = c[0] * a[1] - c[1] * a[0]
    ec = a[0] * b[1] - a[1] * b[0]
    total = ea + eb + ec
    if total != zero and ea * total >= zero and eb * total >= zero and ec * total >= zero:
        return wp.vec3d(ea / total, eb / total, ec / total)
    t = nearest_on_segment(a, b)
    best = wp.vec3d(one - t, t, zero)
    p = a + (b - a) * t
    distance = wp.dot(p, p)
    t = nearest_on_segment(b, c)
    p = b + (c - b) * t
    if wp.dot(p, p) < distance:
        distance = wp.dot(p, p)
        best = wp.vec3d(zero, one - t, t)
    t = nearest_on_segment(c, a)
    p = c + (a - c) * t
    if wp.dot(p, p) < distance:
        best = wp.vec3d(t, zero, one - t)
    return best


@wp.func
def texel(uv: wp.vec2, x: wp.int32, y: wp.int32, height: wp.int32, width: wp.int32) -> wp.vec2d:
    """Texture coordinate in texels, relative to the centre of texel (x, y)."""
    half = wp.float64(0.5)
    return wp.vec2d(
        wp.float64(uv[0]) * wp.float64(width) - wp.float64(x) - half,
        wp.float64(uv[1]) * wp.float64(height) - wp.float64(y) - half,
    )


@wp.func
def separates(a: wp.vec2d, b: wp.vec2d, c: wp.vec2d) -> wp.bool:
    """Whether the line through ab keeps the unit square around the origin apart from the triangle abc."""
    nx = a[1] - b[1]
    ny = b[0] - a[0]
    centre = -(nx * a[0] + ny * a[1])
    third = nx * (c[0] - a[0]) + ny * (c[1] - a[1])
    reach = wp.float64(0.5) * (wp.abs(nx) + wp.abs(ny))
    if third > wp.float64(0.0):
        return centre < -reach
    if third < wp.float64(0.0):
        return centre > reach
    return wp.abs(centre) > reach


@wp.kernel
def draw_touched(
    start: wp.int32,
    lanes: wp.int32,
    height: wp.int32,
    width: wp.int32,
    uvs: wp.array(dtype=wp.vec2),
    faces: wp.array2d(dtype=wp.int32),
    covered: wp.array(dtype=wp.int64),
    keys: wp.array(dtype=wp.int64),
) -> None:
    """For empty texels, the nearest of the triangles that touch them."""
    t = wp.tid()
    face = start + t // lanes
    lane = t % lanes
    p = uvs[faces[face, 0]]
    q = uvs[faces[face, 1]]
    r = uvs[faces[face, 2]]
    if not wp.isfinite(p[0] + p[1] + q[0] + q[1] + r[0] + r[1]):
        return
    half = wp.float64(0.5)
    a = texel(p, 0, 0, height, width)
    b = texel(q, 0, 0, height, width)
    c = texel(r, 0, 0, height, width)
    # texels whose square meets the bounding box
    x0 = pixel_low((wp.min(a[0], wp.min(b[0], c[0])) - half) * SUBPIXELS, width)
    x1 = pixel_high((wp.max(a[0], wp.max(b[0], c[0])) + half) * SUBPIXELS, width)
    y0 = pixel_low((wp.min(a[1], wp.min(b[1], c[1])) - half) * SUBPIXELS, height)
    y1 = pixel_high((wp.max(a[1], wp.max(b[1], c[1])) + half) * SUBPIXELS, height)
    y = y0 + lane
    while y < y1:
        for x in range(x0, x1):
            pixel = y * width + x
            if covered[pixel] == EMPTY_KEY:
                offset = wp.vec2d(wp.float64(x), wp.float64(y))
                u = a - offset
                v = b - offset
                w = c - offset
                if not (separates(u, v, w) or separates(v, w, u) or separates(w, u, v)):
                    weights = nearest_weights(u, v, w)
                    near = u * weights[0] + v * weights[1] + w * weights[2]
                    wp.atomic_min(keys, pixel, pack(wp.float32(wp.length(near)), face))
        y += lanes


@wp.kernel
def resolve_uv(
    start: wp.int32,
    uvs: wp.array(dtype=wp.vec2),
    faces: wp.array2d(dtype=wp.int32),
    covered: wp.array(dtype=wp.int64),
    touched: wp.array(dtype=wp.int64),
    height: wp.int32,
    width: wp.int32,
    face_id: wp.array(dtype=wp.int32),
    barycentric: wp.array(dtype=wp.vec2),
    depth: wp.array(dtype=wp.float32),
) -> None:
    """Keys to face id and the barycentrics of the point of that face nearest to the texel's centre."""
    pixel = start + wp.tid()
    key = covered[pixel]
    distance = wp.float32(0.0)
    if key == EMPTY_KEY and touched.shape[0] > 0:
        key = touched[pixel]
        distance = key_depth(key)
    if key == EMPTY_KEY:
        face_id[pixel] = -1
        barycentric[pixel] = wp.vec2(0.0, 0.0)
        depth[pixel] = 1.0
        return
    face = key_face(key)
    x = pixel % width
    y = pixel // width
    weights = nearest_weights(
        texel(uvs[faces[face, 0]], x, y, height, width),
        texel(uvs[faces[face, 1]], x, y, height, width),
        texel(uvs[faces[face, 2]], x, y, height, width),
    )
    face_id[pixel] = face
    barycentric[pixel] = wp.vec2(wp.float32(weights[0]), wp.float32(weights[1]))
    depth[pixel] = distance
