"""The decoders of EXT_meshopt_compression: what the encoders made, what hostile streams claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from o_voxel.check.meshopt import decode
from o_voxel.errors import FormatError
from o_voxel.postprocess.writers.meshopt import encode_attributes, encode_triangles


def view(mode: str, count: int, stride: int, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "count": count, "byteStride": stride, **more}


@pytest.mark.parametrize("stride", [4, 12, 64, 256])
@pytest.mark.parametrize("count", [1, 16, 17, 300])
@pytest.mark.parametrize("spread", [0, 1, 20, 255])
def test_attributes(stride: int, count: int, spread: int) -> None:
    random = np.random.default_rng(stride + count + spread)
    data = np.cumsum(random.integers(-spread, spread + 1, (count, stride)), axis=0).astype(np.uint8)
    assert decode(encode_attributes(data), view("ATTRIBUTES", count, stride)) == data.tobytes()


def turned(faces: np.ndarray) -> np.ndarray:
    """Each face with its smallest corner first: a decoder may begin it at another one."""
    start = faces.argmin(axis=1)[:, None]
    return np.take_along_axis(faces, (start + np.arange(3)) % 3, axis=1)


@pytest.mark.parametrize("top", [4, 40, 4000, 1 << 20])
def test_triangles(top: int) -> None:
    faces = np.random.default_rng(top).integers(0, top, (500, 3))
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    found = np.frombuffer(decode(encode_triangles(faces), view("TRIANGLES", faces.size, 4)), "<u4")
    np.testing.assert_array_equal(turned(found.reshape(-1, 3)), turned(faces))


def test_a_sequence_of_indices() -> None:
    # steps of +5, -2 from the first number, +200 from the second
    stream = bytes([0xD1, 5 << 2, 3 << 1, (400 << 1 | 1) & 127 | 128, (400 << 1 | 1) >> 7, 0, 0, 0, 0])
    assert np.frombuffer(decode(stream, view("INDICES", 3, 2)), "<u2").tolist() == [5, 3, 200]


@pytest.mark.parametrize(("stride", "worst"), [(4, 1.2), (8, 0.01)])
def test_octahedral_normals(stride: int, worst: float) -> None:
    normals = np.random.default_rng(2).normal(size=(300, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    x, y, z = (normals / np.abs(normals).sum(axis=1, keepdims=True)).T
    folded = np.where(z < 0, [(1 - abs(y)) * np.sign(x), (1 - abs(x)) * np.sign(y)], [x, y]).T
    dtype = np.dtype(f"<i{stride // 4}")
    packed = np.zeros((300, 4), dtype)
    packed[:, :2], packed[:, 2] = np.rint(folded * np.iinfo(dtype).max), np.iinfo(dtype).max
    stream = encode_attributes(packed.view(np.uint8).reshape(300, stride))
    found = np.frombuffer(decode(stream, view("ATTRIBUTES", 300, stride, filter="OCTAHEDRAL")), dtype)
    shown = found.reshape(300, 4)[:, :3].astype(float)
    cosine = (shown * normals).sum(axis=1) / np.linalg.norm(shown, axis=1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < worst


def test_exponential_numbers() -> None:
    packed = np.array([[3 << 0 | (-1 & 0xFF) << 24, (-5 & 0xFFFFFF) | 4 << 24]], np.uint32)  # 3 / 2, -5 * 16
    stream = encode_attributes(packed.astype("<u4").view(np.uint8).reshape(1, 8))
    found = np.frombuffer(decode(stream, view("ATTRIBUTES", 1, 8, filter="EXPONENTIAL")), "<f4")
    assert found.tolist() == [1.5, -80.0]


@pytest.mark.parametrize(
    ("stream", "entry"),
    [
        (b"", view("ATTRIBUTES", 1, 4)),
        (b"\xa1" + bytes(99), view("ATTRIBUTES", 1, 4)),
        (b"\xa0" + bytes(99), view("ATTRIBUTES", 1 << 40, 4)),
        (b"\xa0" + bytes(99), view("ATTRIBUTES", 1, 5)),
        (b"\xa0" + bytes(99), view("ATTRIBUTES", -1, 4)),
        (b"\xa0" + b"\xff" * 99, view("ATTRIBUTES", 64, 64)),
        (b"\xa0" + bytes(99), view("ATTRIBUTES", 4, 12, filter="OCTAHEDRAL")),
        (b"\xe1" + bytes(20), view("TRIANGLES", 60, 4)),
        (b"\xe1" + b"\xff" * 20, view("TRIANGLES", 9, 2)),
        (b"\xd1" + b"\xff" * 9, view("INDICES", 1, 4)),
        (b"\xd1" + bytes(9), view("INDICES", 3, 8)),
        (b"\xd1" + bytes(9), view("SOMETHING", 3, 4)),
    ],
)  # fmt: skip
def test_streams_that_cannot_be(stream: bytes, entry: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="meshopt"):
        decode(stream, entry)


@given(
    st.binary(max_size=200),
    st.sampled_from(["ATTRIBUTES", "TRIANGLES", "INDICES"]),
    st.integers(0, 300),
    st.sampled_from([2, 4, 12]),
)
def test_noise_gives_as_much_as_was_asked_or_a_format_error(
    noise: bytes, mode: str, count: int, stride: int
) -> None:
    header = {"ATTRIBUTES": b"\xa0", "TRIANGLES": b"\xe1", "INDICES": b"\xd1"}[mode]
    try:
        found = decode(header + noise, view(mode, count, stride))
    except FormatError:
        return
    assert len(found) == count * stride
