"""Packing the state of an asset at 512, as a decoder emits it: bumpy sphere and torus, colours with noise."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.record import Record
from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.protocol.state import (
    MeshState,
    compress_state,
    decompress_state,
    pack_state,
    unpack_state,
)

SCALE_OF_512 = 0.956
"""Gives 0.75 M voxels."""

NOISE = 0.01
"""Standard deviation of the colours' noise: smooth colours would flatter the figures."""


def run() -> list[Record]:
    """Sizes in MB (10^6 bytes), seconds of processor time, errors in units of what is allowed."""
    state = dual_grid(512, noise=NOISE, scale=SCALE_OF_512)
    arrays = (state.vertices, state.faces, state.coords, state.attrs)
    raw = sum(a.nbytes for a in arrays) / 1e6
    note = f"{len(state.coords):,} voxels, {len(state.faces):,} faces"
    records = [Record("raw arrays", raw, "MB", note=note)]
    records += _measure(state, "compact", lossless=False, size=7.0)
    records += _measure(state, "lossless", lossless=True, size=20.0)
    return records


def _measure(state: MeshState, name: str, lossless: bool, size: float) -> list[Record]:
    start = time.process_time()
    data = compress_state(pack_state(state, lossless))
    packed_at = time.process_time()
    back = unpack_state(decompress_state(data))
    unpacked_at = time.process_time()
    if not np.array_equal(back.faces, state.faces):
        raise AssertionError("the faces changed")
    vertex_error = float(np.abs(back.vertices - state.vertices).max()) / state.voxel_size * 64
    attribute_error = float(np.abs(back.attrs - state.attrs).max()) * 255
    bound = 0.0 if lossless else 1.0
    return [
        Record(f"{name} size", len(data) / 1e6, "MB", size),
        Record(f"{name} pack and compress", packed_at - start, "s", 2.0),
        Record(f"{name} unpack", unpacked_at - packed_at, "s", 1.0),
        Record(f"{name} vertex error", vertex_error, "1/64 voxel", bound),
        Record(f"{name} attribute error", attribute_error, "1/255", bound),
    ]
