"""Warp kernel of `tonemap`; imported on first use only."""

# mypy: ignore-errors
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.func
def aces(x: wp.float32) -> wp.float32:
    return wp.clamp(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0.0, 1.0)


@wp.kernel
def develop(
    start: wp.int32,
    colour: wp.array(dtype=wp.vec3),
    openness: wp.array(dtype=wp.float32),
    coverage: wp.array(dtype=wp.float32),
    backdrop: wp.array(dtype=wp.vec3),
    size: wp.int32,
    ssaa: wp.int32,
    result: wp.array(dtype=wp.vec3),
) -> None:
    """`tonemap.develop_torch`: a tent filter two pixels wide, the tone curve, the backdrop, gamma."""
    i = start + wp.tid()
    side = size // ssaa
    row = i // side
    column = i % side
    middle = 0.5 * float(ssaa)
    first_row = wp.max(row * ssaa - (ssaa + 1) // 2, 0)
    last_row = wp.min(row * ssaa + ssaa + (ssaa + 1) // 2, size)
    first_column = wp.max(column * ssaa - (ssaa + 1) // 2, 0)
    last_column = wp.min(column * ssaa + ssaa + (ssaa + 1) // 2, size)
    light = wp.vec3(0.0, 0.0, 0.0)
    share = wp.float32(0.0)
    total = wp.float32(0.0)
    for y in range(first_row, last_row):
        wy = 1.0 - wp.abs(float(y - row * ssaa) + 0.5 - middle) / float(ssaa)
        for x in range(first_column, last_column):
            wx = 1.0 - wp.abs(float(x - column * ssaa) + 0.5 - middle) / float(ssaa)
            w = wp.max(wx, 0.0) * wp.max(wy, 0.0)
            total += w
            sample = y * size + x
            if coverage[sample] > 0.0 or backdrop.shape[0] == 0:
                light += colour[sample] * (openness[sample] * w)
                share += coverage[sample] * w
    light = light / total
    share = share / total
    behind = wp.vec3(0.0, 0.0, 0.0)
    if backdrop.shape[0] > 0:
        behind = backdrop[i % backdrop.shape[0]] * (1.0 - share)
        light = light / wp.max(share, 1.0e-4)
    else:
        share = 1.0
    out = wp.vec3(0.0, 0.0, 0.0)
    for k in range(3):
        out[k] = wp.pow(wp.max(aces(wp.max(light[k], 0.0)) * share + behind[k], 0.0), 1.0 / 2.2)
    result[i] = out
