"""CPU launches whose threads would write to the same pixels: a buffer for each thread, merged afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from o_voxel.kernels import cpu_threads, launch_serially, load, on_cpu_threads

MAX_BUFFERS = 8
"""Each buffer is as large as the picture: more cost more memory and merging than they save."""

SMALLEST_PART = 4096
"""Faces below which a CPU launch is not worth a second thread."""

CUDA_THREADS = 1 << 20
"""Enough to fill a GPU: where there are fewer faces, several threads share the rows of each."""


def draw_keys(
    kernel: Any, faces: int, height: int, width: int, inputs: Sequence[Any], device: torch.device
) -> torch.Tensor:
    """[H*W] int64: the smallest key that `kernel` writes at each pixel.

    The kernel is called as (start, lanes, height, width, *inputs, keys) with `lanes` threads a face. Warp's
    atomics are plain operations on a CPU, so there each thread draws its faces into a buffer of its own.
    """
    from o_voxel.raster.draw_kernels import EMPTY

    on_cpu = device.type == "cpu"
    parts = max(1, min(cpu_threads(), MAX_BUFFERS, faces // SMALLEST_PART)) if on_cpu else 1
    lanes = 1 if on_cpu else max(1, min(height, CUDA_THREADS // max(faces, 1)))
    buffers = torch.full((parts, height * width), EMPTY, dtype=torch.int64, device=device)
    if parts == 1:
        shared = [lanes, height, width, *inputs, buffers[0]]
        launch_serially(kernel, faces * lanes, shared, device)
        return buffers[0]
    load(kernel, device)
    bounds = [faces * n // parts for n in range(parts + 1)]

    def draw(n: int) -> None:
        shared = [lanes, height, width, *inputs, buffers[n]]
        launch_serially(kernel, bounds[n + 1] - bounds[n], shared, device, bounds[n])

    on_cpu_threads(draw, parts)
    keys = buffers[0]
    for other in buffers[1:]:
        torch.minimum(keys, other, out=keys)
    return keys
