"""The objects of the benchmarks, as a decoder would make them."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.objects import as_decoded, asset_of, benchmark_object, frayed
from trellis2_modal.protocol.state import peek_state
from trellis2_modal.protocol.state.topology import find_order
from trellis2_modal.service.state import compress_state, pack_state


def quads(made: dict) -> set[tuple[int, ...]]:
    """The voxels around each pair of faces, whatever their numbers and order."""
    voxels = made["coords"].numpy()[made["faces"].numpy()] @ np.array([1 << 20, 1 << 10, 1])
    return {tuple(np.unique(pair)) for pair in voxels.reshape(-1, 6)}


def test_a_decoded_object_is_what_a_state_stores_as_flags() -> None:
    plain = benchmark_object(64)
    made = as_decoded(plain)
    header = peek_state(compress_state(pack_state(asset_of(made))))
    assert find_order(made["coords"].numpy()) == header["levels"] == 4
    assert 2 * header["quads"] == header["faces"] == len(plain["faces"])
    assert quads(made) == quads(plain)


def test_a_frayed_object_lacks_as_many_faces_as_asked() -> None:
    made = as_decoded(benchmark_object(64))
    torn = frayed(made, 0.03)
    assert abs(1 - len(torn["faces"]) / len(made["faces"]) - 0.03) < 0.01
    assert torch.equal(torn["vertices"], made["vertices"])
