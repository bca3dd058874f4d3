"""Warp kernel of `packing`; imported on first use only."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def pack_kernel(
    start: int,
    order: wp.array(dtype=int),
    turns: int,
    rotations: wp.array(dtype=wp.vec2),
    border: wp.array(dtype=wp.vec2i),
    first_border: wp.array(dtype=int),
    sizes: wp.array(dtype=wp.vec2i),
    lows: wp.array(dtype=wp.vec2),
    inner: wp.array(dtype=wp.vec2),
    first_inner: wp.array(dtype=int),
    cells: int,
    skip: wp.array(dtype=int),
    taken: wp.array(dtype=wp.uint8),
    turn_of: wp.array(dtype=int),
    place_of: wp.array(dtype=wp.vec2i),
    placed: wp.array(dtype=int),
):
    """One thread places all charts: each as low as one of its turns allows, then as far left.

    `skip` holds how many cells of its row, from a cell on, are taken. Chart c's cells after turn t are
    `border` from `first_border[turns * c + t]` on.
    """
    charts = order.shape[0]
    for number in range(charts):
        chart = order[number]
        best_top = int(cells)
        best_turn = int(-1)
        best_place = wp.vec2i(0, 0)
        for turn in range(turns):
            item = turns * chart + turn
            size = sizes[item]
            y = int(1)
            while y + size[1] < best_top:
                x = int(1)
                found = int(0)
                while found == 0 and x + size[0] < cells:
                    hop = int(0)
                    k = first_border[item]
                    end = first_border[item + 1]
                    while k < end:
                        cell = border[k]
                        hop = skip[(y + cell[1]) * cells + x + cell[0]]
                        if hop > 0:
                            k = end
                        k += 1
                    if hop > 0:
                        x += hop
                    else:
                        found = int(1)
                if found == 1:
                    best_top = y + size[1]
                    best_turn = turn
                    best_place = wp.vec2i(x, y)
                    y = cells
                y += 1
        if best_turn < 0:
            return
        item = turns * chart + best_turn
        size = sizes[item]
        # The cells around a chart stay free, too.
        for k in range(first_border[item], first_border[item + 1]):
            cell = best_place + border[k]
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    taken[(cell[1] + dy) * cells + cell[0] + dx] = wp.uint8(1)
        turned = rotations[best_turn]
        low = lows[item]
        for k in range(first_inner[chart], first_inner[chart + 1]):
            point = inner[k]
            column = best_place[0] + int(turned[0] * point[0] - turned[1] * point[1] - low[0])
            row = best_place[1] + int(turned[1] * point[0] + turned[0] * point[1] - low[1])
            taken[row * cells + column] = wp.uint8(1)
        for row in range(best_place[1] - 1, best_place[1] + size[1] + 1):
            run = int(0)
            for back in range(cells):
                at = row * cells + cells - 1 - back
                if taken[at] != wp.uint8(0):
                    run += 1
                else:
                    run = int(0)
                skip[at] = run
        turn_of[chart] = best_turn
        place_of[chart] = best_place
        placed[0] = number + 1
