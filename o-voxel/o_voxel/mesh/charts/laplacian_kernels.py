"""Warp kernel of `laplacian`; imported on first use only."""

# mypy: ignore-errors
# No postponed annotations here: Warp reads the argument types of kernels at definition.

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def sparse_product_kernel(
    start: int,
    offsets: wp.array(dtype=int),
    columns: wp.array(dtype=int),
    values: wp.array(dtype=wp.float64),
    x: wp.array(dtype=wp.vec2d),
    product: wp.array(dtype=wp.vec2d),
):
    """Row by row of a matrix in compressed rows, times two columns."""
    row = start + wp.tid()
    total = wp.vec2d()
    for k in range(offsets[row], offsets[row + 1]):
        total += values[k] * x[columns[k]]
    product[row] = total
