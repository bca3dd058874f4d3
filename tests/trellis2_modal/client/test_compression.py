from __future__ import annotations

import numpy as np
import pytest

from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.client.compression import (
    from_base64,
    load_state,
    peek_state,
    save_state,
    to_base64,
)
from trellis2_modal.protocol.errors import InvalidStateError


def test_a_state_comes_back_from_disk() -> None:
    state = dual_grid(24)
    exact = load_state(save_state(state, lossless=True))
    for name in ("coords", "attrs", "vertices", "faces"):
        np.testing.assert_array_equal(getattr(exact, name), getattr(state, name))
    compact = load_state(save_state(state))
    np.testing.assert_array_equal(compact.coords, state.coords)
    np.testing.assert_allclose(compact.attrs, state.attrs, atol=1 / 255)
    assert len(save_state(state)) < len(save_state(state, lossless=True))
    assert peek_state(save_state(state))["voxels"] == len(state.coords)


@pytest.mark.parametrize("text", ["not base64!", "AAA", "äöü", "AAAA\n"])
def test_base64_is_strict(text: str) -> None:
    assert from_base64(to_base64(b"\x00\xff")) == b"\x00\xff"
    with pytest.raises(InvalidStateError):
        from_base64(text)


@pytest.mark.parametrize("data", [b"", b"no state", b"\x04\x22\x4d\x18" + bytes(40)])
def test_bytes_that_are_no_state_are_named(data: bytes) -> None:
    with pytest.raises(InvalidStateError):
        load_state(data)
