"""Warp kernels of `occlusion`; imported on first use only."""

# mypy: ignore-errors
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def occlude(
    start: wp.int32,
    pixels: wp.array(dtype=wp.int64),
    normals: wp.array(dtype=wp.vec3),
    rotation: wp.mat33,
    depth: wp.array(dtype=wp.float32),
    table: wp.array2d(dtype=wp.vec3),
    height: wp.int32,
    width: wp.int32,
    camera: wp.vec4,
    radius: wp.float32,
    bias: wp.float32,
    slope: wp.float32,
    blocked: wp.array(dtype=wp.float32),
) -> None:
    """Fraction of the samples around each pixel's point that lie behind a nearby surface."""
    pixel = int(pixels[start + wp.tid()])
    column = pixel % width
    row = pixel // width
    z = depth[pixel]
    n = rotation * normals[pixel]
    x = ((float(column) + 0.5) / float(width) - camera[2]) / camera[0] * z
    y = ((float(row) + 0.5) / float(height) - camera[3]) / camera[1] * z
    # neighbouring pixels take different rows of the table: the same pattern every 4 pixels
    pattern = (row % 4) * 4 + column % 4
    margin = bias + slope * z / (float(width) * camera[0] * wp.max(wp.abs(n[2]), 0.1))
    hits = wp.float32(0.0)
    count = table.shape[1]
    for k in range(count):
        d = table[pattern, k]
        if wp.dot(d, n) < 0.0:
            d = -d
        sz = z + d[2]
        if sz > 1.0e-6:
            u = ((x + d[0]) / sz * camera[0] + camera[2]) * float(width)
            v = ((y + d[1]) / sz * camera[1] + camera[3]) * float(height)
            px = wp.clamp(int(wp.floor(u)), 0, width - 1)
            py = wp.clamp(int(wp.floor(v)), 0, height - 1)
            geometry = depth[py * width + px]
            gap = sz - geometry
            if gap >= margin and gap < radius:
                hits += 1.0
    blocked[pixel] = hits / float(count)


@wp.kernel
def smooth(
    start: wp.int32,
    pixels: wp.array(dtype=wp.int64),
    depth: wp.array(dtype=wp.float32),
    blocked: wp.array(dtype=wp.float32),
    height: wp.int32,
    width: wp.int32,
    reach: wp.float32,
    intensity: wp.float32,
    openness: wp.array(dtype=wp.float32),
) -> None:
    """1 - mean over 4 x 4 pixels, one of each sample pattern, leaving out those beyond `reach` in depth."""
    pixel = int(pixels[start + wp.tid()])
    column = pixel % width
    row = pixel // width
    z = depth[pixel]
    total = wp.float32(0.0)
    count = wp.float32(0.0)
    for y in range(wp.max(row - 2, 0), wp.min(row + 2, height)):
        for x in range(wp.max(column - 2, 0), wp.min(column + 2, width)):
            other = y * width + x
            if other == pixel or wp.abs(depth[other] - z) < reach:
                total += blocked[other]
                count += 1.0
    openness[pixel] = 1.0 - wp.clamp(total / wp.max(count, 1.0) * intensity, 0.0, 1.0)
