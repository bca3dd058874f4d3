"""Warp kernels of `prefilter`; imported on first use only."""

# mypy: ignore-errors
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def cone_range(ra: wp.float32, rs: wp.float32, sine: wp.float32) -> wp.vec2:
    """Bounds of s on a face for the cone around a direction; ra and rs are its parts along the axis and s."""
    square = sine * sine
    a = ra * ra - square
    if ra <= 0.0 or a <= 1.0e-6:
        return wp.vec2(-1.0, 1.0)
    root = wp.sqrt(wp.max(ra * ra * rs * rs - a * (rs * rs - square), 0.0))
    return wp.vec2((ra * rs - root) / a, (ra * rs + root) / a)


@wp.kernel
def filter_ggx(
    start: wp.int32,
    texels: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    areas: wp.array(dtype=wp.float32),
    axes: wp.array(dtype=wp.vec3),
    size: wp.int32,
    alpha_squared: wp.float32,
    cutoff: wp.float32,
    result: wp.array(dtype=wp.vec3),
) -> None:
    """GGX-weighted mean of a cube of `size` around each direction, N = V = R; texels below the cutoff are
    skipped.
    """
    i = start + wp.tid()
    n = directions[i]
    sine = wp.sqrt(wp.max(1.0 - cutoff * cutoff, 0.0))
    total = wp.vec3(0.0, 0.0, 0.0)
    weights = wp.float32(0.0)
    half = 0.5 * float(size)
    # a face reaches 54.7 degrees from its axis, the cone `cutoff` from n: beyond their sum they do not meet
    reach = wp.where(cutoff > 0.0, 0.57735 * cutoff - 0.81650 * sine, -1.0)
    for face in range(6):
        ra = wp.dot(n, axes[face * 3])
        if ra >= reach:
            s = cone_range(ra, wp.dot(n, axes[face * 3 + 1]), sine)
            t = cone_range(ra, wp.dot(n, axes[face * 3 + 2]), sine)
            x0 = wp.max(int(wp.floor((s[0] + 1.0) * half - 0.5)), 0)
            x1 = wp.min(int(wp.ceil((s[1] + 1.0) * half - 0.5)), size - 1)
            y0 = wp.max(int(wp.floor((t[0] + 1.0) * half - 0.5)), 0)
            y1 = wp.min(int(wp.ceil((t[1] + 1.0) * half - 0.5)), size - 1)
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    index = y * size + x
                    j = face * size * size + index
                    cosine = wp.dot(n, directions[j])
                    if cosine >= cutoff and cosine > 0.0:
                        # N = V: the half vector's cosine is that of half the angle
                        c = wp.sqrt(0.5 + 0.5 * wp.min(cosine, 1.0))
                        d = (c * alpha_squared - c) * c + 1.0
                        w = cosine * areas[index] * alpha_squared / (d * d)
                        total += texels[j] * w
                        weights += w
    if weights > 0.0:
        result[i] = total / weights
    else:
        result[i] = texels[i]


@wp.kernel
def integrate_fg(
    start: wp.int32,
    size: wp.int32,
    count: wp.int32,
    nodes: wp.array(dtype=wp.float32),
    weights: wp.array(dtype=wp.float32),
    result: wp.array(dtype=wp.vec2),
) -> None:
    """Split-sum scale and bias of F0 by `count` x `count` Gauss-Legendre nodes over the normals that the eye
    sees.

    Half a disc of visible normals is enough by symmetry; the weight left over, masking-shadowing over
    masking, stays below 1.
    """
    i = start + wp.tid()
    v_z = (float(i % size) + 0.5) / float(size)
    roughness = (float(i // size) + 0.5) / float(size)
    alpha = roughness * roughness
    square = alpha * alpha
    v_x = wp.sqrt(1.0 - v_z * v_z)
    stretched = wp.sqrt(square * v_x * v_x + v_z * v_z)
    # the eye, where the surface is a hemisphere
    e_x = alpha * v_x / stretched
    e_z = v_z / stretched
    lift = 0.5 * (1.0 + e_z)
    smith_view = wp.sqrt(square + (1.0 - square) * v_z * v_z)
    scale = wp.float32(0.0)
    bias = wp.float32(0.0)
    for spoke in range(count):
        angle = (nodes[spoke] - 0.5) * wp.pi
        across = wp.cos(angle)
        upward = wp.sin(angle)
        for ring in range(count):
            # radius^2 = 1 - (1 - x)^2 takes away the square root's singularity at the rim
            x = nodes[ring]
            radius = wp.sqrt(x * (2.0 - x))
            density = 2.0 * (1.0 - x) * weights[ring] * weights[spoke]
            t1 = radius * across
            t2 = (1.0 - lift) * wp.sqrt(wp.max(1.0 - t1 * t1, 0.0)) + lift * radius * upward
            along = wp.sqrt(wp.max(1.0 - t1 * t1 - t2 * t2, 0.0))
            n_x = e_x * along - e_z * t2
            n_z = wp.max(e_z * along + e_x * t2, 0.0)
            length = wp.sqrt(square * (n_x * n_x + t1 * t1) + n_z * n_z)
            vh = (v_x * alpha * n_x + v_z * n_z) / length
            l_z = 2.0 * vh * n_z / length - v_z
            if l_z > 0.0:
                smith_light = wp.sqrt(square + (1.0 - square) * l_z * l_z)
                w = density * l_z * (v_z + smith_view) / (v_z * smith_light + l_z * smith_view)
                c = 1.0 - wp.clamp(vh, 0.0, 1.0)
                fresnel = c * c * c * c * c
                scale += (1.0 - fresnel) * w
                bias += fresnel * w
    result[i] = wp.vec2(scale, bias)
