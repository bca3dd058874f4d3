"""Warp kernels of `surface` and `envmap`: what is seen at a pixel, and how it is lit. Imported on first use
only.

`normals.smooth_normals` and `shading.shade_torch` say the same in torch; tests compare.
"""

# mypy: ignore-errors
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def lean(
    normal: wp.vec3,
    flat: wp.vec3,
    weight: wp.float32,
    flat_above: wp.float32,
    smooth_below: wp.float32,
) -> wp.vec3:
    """A corner's part of the shading normal: smooth where it agrees with the face, flat at creases."""
    cosine = wp.dot(normal, flat)
    ramp = wp.clamp((wp.abs(cosine) - flat_above) / (smooth_below - flat_above), 0.0, 1.0)
    smooth = ramp * ramp * (3.0 - 2.0 * ramp) * weight
    return normal * (smooth * wp.sign(cosine)) + flat * (weight - smooth)


@wp.kernel
def find_surface(
    start: wp.int32,
    pixels: wp.array(dtype=wp.int64),
    face_id: wp.array(dtype=wp.int32),
    barycentric: wp.array(dtype=wp.vec2),
    clip_depth: wp.array(dtype=wp.float32),
    faces: wp.array2d(dtype=wp.int32),
    flat_normals: wp.array(dtype=wp.vec3),
    smooth_normals: wp.array(dtype=wp.vec3),
    vertex_attrs: wp.array2d(dtype=wp.float32),
    rotation: wp.mat33,
    camera: wp.vec4,
    size: wp.int32,
    near: wp.float32,
    far: wp.float32,
    flat_above: wp.float32,
    smooth_below: wp.float32,
    least_cosine: wp.float32,
    normal: wp.array(dtype=wp.vec3),
    to_eye: wp.array(dtype=wp.vec3),
    depth: wp.array(dtype=wp.float32),
    attrs: wp.array2d(dtype=wp.float32),
) -> None:
    """Normal towards the eye, direction to the eye, camera z and attributes at each covered pixel."""
    i = start + wp.tid()
    pixel = int(pixels[i])
    face = face_id[pixel]
    weights = barycentric[pixel]
    w0 = weights[0]
    w1 = weights[1]
    w2 = 1.0 - w0 - w1
    z = 2.0 * near * far / ((far + near) - clip_depth[pixel] * (far - near))
    depth[i] = z
    x = ((float(pixel % size) + 0.5) / float(size) - camera[2]) / camera[0]
    y = ((float(pixel // size) + 0.5) / float(size) - camera[3]) / camera[1]
    eye = -wp.normalize(wp.transpose(rotation) * wp.vec3(x * z, y * z, z))
    to_eye[i] = eye
    flat = flat_normals[face]
    if wp.dot(flat, eye) < 0.0:
        flat = -flat
    a = faces[face, 0]
    b = faces[face, 1]
    c = faces[face, 2]
    n = flat
    if smooth_normals.shape[0] > 0:
        n = lean(smooth_normals[a], flat, w0, flat_above, smooth_below)
        n += lean(smooth_normals[b], flat, w1, flat_above, smooth_below)
        n += lean(smooth_normals[c], flat, w2, flat_above, smooth_below)
        n = wp.normalize(n)
        n = wp.normalize(n + eye * wp.max(least_cosine - wp.dot(n, eye), 0.0))
    normal[i] = n
    if vertex_attrs.shape[0] > 0:
        for k in range(vertex_attrs.shape[1]):
            attrs[i, k] = w0 * vertex_attrs[a, k] + w1 * vertex_attrs[b, k] + w2 * vertex_attrs[c, k]


@wp.func
def locate(d: wp.vec3) -> wp.vec3:
    """Face number, s and t of a direction, as in `cubemap.locate`."""
    ax = wp.abs(d[0])
    ay = wp.abs(d[1])
    az = wp.abs(d[2])
    face = wp.float32(0.0)
    major = d[0]
    s = -d[2]
    t = -d[1]
    if ax >= ay and ax >= az:
        if major < 0.0:
            face = 1.0
            s = d[2]
    elif ay >= az:
        face = 2.0
        major = d[1]
        s = d[0]
        t = d[2]
        if major < 0.0:
            face = 3.0
            t = -d[2]
    else:
        face = 4.0
        major = d[2]
        s = d[0]
        if major < 0.0:
            face = 5.0
            s = -d[0]
    scale = 1.0 / wp.max(wp.abs(major), 1.0e-20)
    return wp.vec3(face, wp.clamp(s * scale, -1.0, 1.0), wp.clamp(t * scale, -1.0, 1.0))


@wp.func
def look_up(texels: wp.array(dtype=wp.vec3), offset: wp.int32, size: wp.int32, place: wp.vec3) -> wp.vec3:
    """Bilinear lookup in a padded cube that begins at `offset`."""
    half = 0.5 * float(size)
    x = (place[1] + 1.0) * half + 0.5
    y = (place[2] + 1.0) * half + 0.5
    column = wp.clamp(int(wp.floor(x)), 0, size)
    row = wp.clamp(int(wp.floor(y)), 0, size)
    wx = x - float(column)
    wy = y - float(row)
    width = size + 2
    corner = offset + (int(place[0]) * width + row) * width + column
    top = texels[corner] * (1.0 - wx) + texels[corner + 1] * wx
    corner = corner + width
    bottom = texels[corner] * (1.0 - wx) + texels[corner + 1] * wx
    return top * (1.0 - wy) + bottom * wy


@wp.func
def radiance(
    eye: wp.vec3,
    n: wp.vec3,
    kd: wp.vec3,
    occlusion: wp.float32,
    roughness: wp.float32,
    metallic: wp.float32,
    texels: wp.array(dtype=wp.vec3),
    offsets: wp.array(dtype=wp.int32),
    sizes: wp.array(dtype=wp.int32),
    fg: wp.array2d(dtype=wp.vec2),
    quirks: wp.bool,
) -> wp.vec3:
    """`shading.shade_torch`; cube 0 is the irradiance, then come the specular levels."""
    ambient = look_up(texels, offsets[0], sizes[0], locate(n))
    cosine = wp.dot(eye, n)
    place = locate(wp.normalize(n * (2.0 * cosine) - eye))
    level = (wp.clamp(roughness, 0.08, 0.5) - 0.08) / 0.42 * 4.0
    if roughness >= 0.5:
        level = (wp.min(roughness, 1.0) - 0.5) / 0.5 + 4.0
    below = wp.clamp(int(wp.floor(level)), 0, sizes.shape[0] - 3)
    part = level - float(below)
    mirror = look_up(texels, offsets[below + 1], sizes[below + 1], place) * (1.0 - part)
    mirror += look_up(texels, offsets[below + 2], sizes[below + 2], place) * part
    mirror = mirror * (1.0 - roughness) + ambient * roughness
    size = fg.shape[0]
    x = wp.clamp(wp.max(cosine, 1.0e-4) * float(size) - 0.5, 0.0, float(size) - 1.0)
    y = wp.clamp(roughness * float(size) - 0.5, 0.0, float(size) - 1.0)
    column = wp.min(int(x), size - 2)
    row = wp.min(int(y), size - 2)
    wx = x - float(column)
    wy = y - float(row)
    top = fg[row, column] * (1.0 - wx) + fg[row, column + 1] * wx
    bottom = fg[row + 1, column] * (1.0 - wx) + fg[row + 1, column + 1] * wx
    scale_bias = top * (1.0 - wy) + bottom * wy
    white = wp.vec3(1.0, 1.0, 1.0)
    f0 = white * (0.04 * (1.0 - metallic)) + kd * metallic
    diffuse = kd * (1.0 - metallic)
    single = f0 * scale_bias[0] + white * scale_bias[1]
    if quirks:
        return (wp.cw_mul(ambient, diffuse) + wp.cw_mul(mirror, single)) * (1.0 - occlusion)
    lost = 1.0 - scale_bias[0] - scale_bias[1]
    average = f0 + (white - f0) / 21.0
    multiple = wp.cw_div(wp.cw_mul(single, average), white - average * lost) * lost
    total = single + multiple
    under = 1.0 - wp.max(total[0], wp.max(total[1], total[2]))
    out = wp.cw_mul(mirror, single) + wp.cw_mul(ambient, multiple + diffuse * under)
    return out * (1.0 - occlusion)


@wp.kernel
def shade(
    start: wp.int32,
    to_eye: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    base: wp.array(dtype=wp.vec3),
    properties: wp.array(dtype=wp.vec3),
    texels: wp.array(dtype=wp.vec3),
    offsets: wp.array(dtype=wp.int32),
    sizes: wp.array(dtype=wp.int32),
    fg: wp.array2d(dtype=wp.vec2),
    quirks: wp.bool,
    result: wp.array(dtype=wp.vec3),
) -> None:
    """Radiance at points; properties: occlusion, roughness, metallic."""
    i = start + wp.tid()
    ks = properties[i]
    result[i] = radiance(
        to_eye[i], normals[i], base[i], ks[0], ks[1], ks[2], texels, offsets, sizes, fg, quirks
    )


@wp.kernel
def cover(
    start: wp.int32,
    pixels: wp.array(dtype=wp.int64),
    normals: wp.array(dtype=wp.vec3),
    depth: wp.array(dtype=wp.float32),
    attrs: wp.array2d(dtype=wp.float32),
    first: wp.bool,
    coverage: wp.array(dtype=wp.float32),
    heaviest: wp.array(dtype=wp.float32),
    front_depth: wp.array(dtype=wp.float32),
    front_normal: wp.array(dtype=wp.vec3),
    weight: wp.array(dtype=wp.float32),
) -> None:
    """A layer's weight (1 - A) alpha at its pixels; the layer that shows most gives the depth."""
    i = start + wp.tid()
    pixel = int(pixels[i])
    covered = coverage[pixel]
    w = (1.0 - covered) * wp.clamp(attrs[i, 5], 0.0, 1.0)
    coverage[pixel] = covered + w
    weight[i] = w
    if first or w > heaviest[pixel]:
        heaviest[pixel] = w
        front_depth[pixel] = depth[i]
        front_normal[pixel] = normals[i]


@wp.kernel
def light_up(
    start: wp.int32,
    pixels: wp.array(dtype=wp.int64),
    to_eye: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    attrs: wp.array2d(dtype=wp.float32),
    weight: wp.array(dtype=wp.float32),
    texels: wp.array(dtype=wp.vec3),
    offsets: wp.array(dtype=wp.int32),
    sizes: wp.array(dtype=wp.int32),
    fg: wp.array2d(dtype=wp.vec2),
    quirks: wp.bool,
    colour: wp.array(dtype=wp.vec3),
) -> None:
    """Add a layer's radiance times its weight; base colours are display values of gamma 2.2."""
    i = start + wp.tid()
    kd = wp.vec3(linear(attrs[i, 0]), linear(attrs[i, 1]), linear(attrs[i, 2]))
    metallic = wp.clamp(attrs[i, 3], 0.0, 1.0)
    roughness = wp.clamp(attrs[i, 4], 0.0, 1.0)
    seen = radiance(to_eye[i], normals[i], kd, 0.0, roughness, metallic, texels, offsets, sizes, fg, quirks)
    pixel = int(pixels[i])
    colour[pixel] = colour[pixel] + seen * weight[i]


@wp.func
def linear(display: wp.float32) -> wp.float32:
    return wp.pow(wp.clamp(display, 0.0, 1.0), 2.2)
