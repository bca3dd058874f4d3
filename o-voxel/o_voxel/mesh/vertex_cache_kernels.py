"""Warp kernel of `vertex_cache`; imported on first use only."""

# mypy: ignore-errors
# ruff: noqa: UP018, RUF046
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def tipsify_kernel(
    start: int,
    faces: wp.array(dtype=int),
    around: wp.array(dtype=int),
    first: wp.array(dtype=int),
    live: wp.array(dtype=int),
    valence: wp.array(dtype=int),
    stamp: wp.array(dtype=int),
    out: wp.array(dtype=int),
    dead_ends: wp.array(dtype=int),
    candidates: wp.array(dtype=int),
    order: wp.array(dtype=int),
    cache: int,
):
    """One thread walks the whole mesh: `live` counts each vertex's faces that are still to come."""
    emitted = int(0)
    time = int(cache + 1)
    stacked = int(0)
    cursor = int(0)
    fan = faces[0]
    while fan >= 0:
        offered = int(0)
        for k in range(valence[fan]):
            face = around[first[fan] + k]
            if out[face] == 0:
                out[face] = 1
                order[emitted] = face
                emitted += 1
                for c in range(3):
                    v = faces[3 * face + c]
                    dead_ends[stacked] = v
                    stacked += 1
                    candidates[offered] = v
                    offered += 1
                    live[v] = live[v] - 1
                    if time - stamp[v] > cache:
                        stamp[v] = time
                        time += 1
        fan = int(-1)
        best = int(-1)
        for k in range(offered):
            v = candidates[k]
            if live[v] > 0:
                age = int(0)
                if time - stamp[v] + 2 * live[v] <= cache:
                    age = time - stamp[v]  # oldest that stays in the cache while its fan is drawn
                if age > best:
                    best = age
                    fan = v
        while fan < 0 and stacked > 0:
            stacked -= 1
            if live[dead_ends[stacked]] > 0:
                fan = dead_ends[stacked]
        while fan < 0 and cursor < live.shape[0]:
            if live[cursor] > 0:
                fan = cursor
            cursor += 1
