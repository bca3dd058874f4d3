"""Warp kernel of `gutters`; imported on first use only."""

# mypy: ignore-errors
# (the kernel language's types are not Python's: `int(0)` declares a variable, `0` a constant)

# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def jump_kernel(
    start: int,
    jump: int,
    height: int,
    width: int,
    seed: wp.array(dtype=int),
    nearer: wp.array(dtype=int),
):
    """The nearest seed that a texel or the eight at distance `jump` know of."""
    i = start + wp.tid()
    row = i // width
    column = i % width
    best = -1
    least = 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            y = row + dy * jump
            x = column + dx * jump
            if y >= 0 and y < height and x >= 0 and x < width:
                offered = seed[y * width + x]
                if offered >= 0:
                    away_y = offered // width - row
                    away_x = offered % width - column
                    distance = away_y * away_y + away_x * away_x
                    if best < 0 or distance < least:
                        best = offered
                        least = distance
    nearer[i] = best
