"""The Warp kernel of `sky`; imported on first use only."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def sky_kernel(
    start: int,
    axis: int,
    dx: int,
    dy: int,
    dz: int,
    nx: int,
    ny: int,
    nz: int,
    empty: wp.array(dtype=wp.uint8),
    count: wp.array(dtype=wp.uint8),
):
    """Walk in from one point of the side of the lattice where `axis` begins, as far as it is empty.

    Each point lies on one path of a direction, which begins on the first of the sides that it crosses.
    """
    i = start + wp.tid()
    x = int(0)
    y = int(0)
    z = int(0)
    if axis == 0:
        y = i / nz
        z = i % nz
    elif axis == 1:
        x = i / nz
        z = i % nz
    else:
        x = i / ny
        y = i % ny
    if axis == 0 and dx < 0:
        x = nx - 1
    if axis == 1 and dy < 0:
        y = ny - 1
    if axis == 2 and dz < 0:
        z = nz - 1
    first = bool(True)
    if axis > 0 and ((dx > 0 and x == 0) or (dx < 0 and x == nx - 1)):
        first = False
    if axis > 1 and ((dy > 0 and y == 0) or (dy < 0 and y == ny - 1)):
        first = False
    if first:
        while x >= 0 and y >= 0 and z >= 0 and x < nx and y < ny and z < nz:
            place = (x * ny + y) * nz + z
            if empty[place] == wp.uint8(0):
                break
            count[place] = count[place] + wp.uint8(1)
            x = x + dx
            y = y + dy
            z = z + dz
