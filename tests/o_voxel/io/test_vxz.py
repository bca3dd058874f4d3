"""vxz: every combination of options, the octree, header lies, bombs."""

from __future__ import annotations

import io
import json
import lzma
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, FormatError
from o_voxel.io import octree, read_vxz, read_vxz_info, write_vxz
from o_voxel.io.codecs import DEFAULT_LEVELS, compress, decompress

from .voxels import blob, damaged_reads_end_well, rows


def packed(count: int = 200, **options: Any) -> bytes:
    handle = io.BytesIO()
    write_vxz(handle, *blob(count), **({"compression": "deflate"} | options))
    return handle.getvalue()


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    offset = int.from_bytes(data[4:8], "big")
    return json.loads(data[8:offset]), data[offset:]


def put_together(fields: Any, body: bytes) -> io.BytesIO:
    text = json.dumps(fields).encode()
    return io.BytesIO(b"VXZ\0" + (8 + len(text)).to_bytes(4, "big") + text + body)


@pytest.mark.parametrize("compression", list(DEFAULT_LEVELS))
@pytest.mark.parametrize("filter", ["none", "parent", "neighbor"])
@pytest.mark.parametrize("interleave", ["as_is", "none", "all"])
def test_every_combination(compression: str, filter: str, interleave: str) -> None:
    coords, attrs = blob()
    data = packed(300, chunk_size=16, filter=filter, compression=compression, attr_interleave=interleave)
    back, back_attrs = read_vxz(io.BytesIO(data), num_threads=2)
    assert list(back_attrs) == list(attrs)
    assert rows(back, back_attrs) == rows(coords, attrs)


@pytest.mark.parametrize("chunk_size", [2, 4, 64, 1024])
def test_chunk_sizes_and_negative_coordinates(chunk_size: int) -> None:
    coords, attrs = blob()
    handle = io.BytesIO()
    write_vxz(handle, coords - 20, attrs, chunk_size=chunk_size, compression="deflate", filter="neighbor")
    handle.seek(0)
    back, back_attrs = read_vxz(handle)
    assert rows(back + 20, back_attrs) == rows(coords, attrs)


def test_info_reads_only_the_header() -> None:
    info = read_vxz_info(io.BytesIO(packed(20, compression="lzma")))
    assert info["num_voxel"] == 20
    assert (info["chunk_size"], info["filter"], info["compression"]) == (256, "none", "lzma")
    assert info["compression_level"] == 9
    assert info["attr"] == [["base_color", 3], ["base", 1], ["roughness", 1]]
    assert info["raw_size"] == 20 * 17


def test_level_zero_means_the_default() -> None:
    assert packed(20, compression="zstd", compression_level=0) == packed(20, compression="zstd")


def test_threads_do_not_change_the_file() -> None:
    assert packed(300, chunk_size=8, num_threads=1) == packed(300, chunk_size=8, num_threads=4)


def test_the_documented_octree() -> None:
    codes = np.array([0, 1, 63])  # (0, 0, 0), (0, 0, 1), (3, 3, 3) of 4
    tree = octree.encode_octree(codes, 2)
    assert tree.data.tobytes() == bytes.fromhex("810380")
    assert octree.decode_octree(tree.data, 2, 3).codes.tolist() == codes.tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.data())
def test_octree_and_filters_come_back(depth: int, data: st.DataObject) -> None:
    size = 1 << (3 * depth)
    codes = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=60))))
    values = np.random.default_rng(0).integers(0, 256, (len(codes), 3), np.uint8)
    tree = octree.encode_octree(codes, depth)
    parsed = octree.decode_octree(tree.data, depth, len(codes))
    assert parsed.codes.tolist() == codes.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(tree.position, parsed.position, strict=True))
    filtered = octree.predict_from_siblings(tree, values)
    assert np.array_equal(octree.restore_from_siblings(parsed, filtered), values)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 10))
def test_octree_noise(noise: bytes, depth: int) -> None:
    try:
        tree = octree.decode_octree(np.frombuffer(noise, np.uint8), depth, 1000)
    except FormatError:
        return
    assert octree.encode_octree(tree.codes, depth).data.tobytes() == noise


@pytest.mark.parametrize(
    "bad",
    [
        {"chunk_size": 1},
        {"chunk_size": 48},
        {"chunk_size": 2048},
        {"filter": "child"},
        {"compression": "rar"},
        {"compression": "lzma", "compression_level": 12},
        {"attr_interleave": "some"},
    ],
)
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        packed(4, **bad)


@pytest.mark.parametrize("name", ["idx", "ptr", "svo"])
def test_reserved_attribute_names(name: str) -> None:
    one = torch.zeros((1, 1), dtype=torch.uint8)
    with pytest.raises(ArgumentError, match=name):
        write_vxz(io.BytesIO(), torch.tensor([[0, 0, 0]]), {name: one})


def test_other_attributes_that_cannot_be_written() -> None:
    one = torch.tensor([[0, 0, 0]])
    with pytest.raises(ArgumentError, match="uint8"):
        write_vxz(io.BytesIO(), one, {"a": torch.zeros((1, 1))})
    with pytest.raises(ArgumentError, match="twice"):
        write_vxz(io.BytesIO(), one.repeat(2, 1), {})


LIES: list[tuple[str, Any]] = [
    ("num_voxel", 1 << 50),
    ("num_voxel", 7),
    ("num_voxel", -1),
    ("num_voxel", True),
    ("num_voxel", "200"),
    ("chunk_size", 3),
    ("chunk_size", 1 << 30),
    ("compression", "rar"),
    ("compression", ["lzma"]),
    ("compression_level", 99),
    ("filter", None),
    ("attr", [["a", 1 << 40]]),
    ("attr", [["a"]]),
    ("attr", [["svo", 5]]),
    ("attr", [["base_color", 2], ["base", 1], ["roughness", 1]]),
    ("attr", {}),
    ("chunks", {}),
    ("chunks", []),
    ("chunks", [[]]),
    ("chunks", [{}] * 500),
]


@pytest.mark.parametrize(("key", "value"), LIES)
def test_header_lies(key: str, value: Any) -> None:
    fields, body = taken_apart(packed())
    with pytest.raises(FormatError):
        read_vxz(put_together(fields | {key: value}, body))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("idx", [1 << 40, 0, 0]),
        ("idx", [0, 0]),
        ("idx", "abc"),
        ("ptr", [0, 1 << 40]),
        ("ptr", [-5, 10]),
        ("svo", [0, 1 << 40]),
        ("svo", [0, 0]),
        ("base", None),
        ("base", [0, 1]),
    ],
)
def test_chunk_lies(key: str, value: Any) -> None:
    fields, body = taken_apart(packed())
    fields["chunks"][0][key] = value
    with pytest.raises(FormatError):
        read_vxz(put_together(fields, body))


def test_the_same_chunk_twice() -> None:
    fields, body = taken_apart(packed())
    fields["chunks"] *= 2
    fields["num_voxel"] *= 2
    with pytest.raises(FormatError, match="twice"):
        read_vxz(put_together(fields, body))


def test_versions_and_magic() -> None:
    data = packed(4)
    with pytest.raises(FormatError, match="Invalid file type"):
        read_vxz(io.BytesIO(b"ZIP" + data[3:]))
    with pytest.raises(FormatError, match="Invalid file version"):
        read_vxz_info(io.BytesIO(data[:3] + b"\1" + data[4:]))
    with pytest.raises(FormatError, match="JSON"):
        read_vxz(io.BytesIO(b"VXZ\0" + (8 + 4000).to_bytes(4, "big") + b"[" * 4000))


BOMBS = {
    "deflate": lambda: compress(bytes(1 << 24), "deflate", 9),
    "zstd": lambda: compress(bytes(1 << 24), "zstd", 3),
    "lzma": lambda: lzma.compress(
        bytes(1 << 24), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]
    ),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_stop_at_the_limit(name: str) -> None:
    bomb = BOMBS[name]()
    assert len(bomb) < 1 << 15
    with pytest.raises(FormatError, match="more than the 100 bytes"):
        decompress(bomb, name, 9, 100)
    fields, _ = taken_apart(packed(8, compression=name))
    fields["chunks"] = fields["chunks"][:1]
    for stream in ("svo", "base_color", "base", "roughness"):
        fields["chunks"][0][stream] = [0, len(bomb)]
    fields["chunks"][0]["ptr"] = [0, len(bomb)]
    with pytest.raises(FormatError, match="more than"):
        read_vxz(put_together(fields, bomb))


def test_a_deflate_stream_without_its_end() -> None:
    whole = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = whole.compress(bytes(range(256))) + whole.flush()
    with pytest.raises(FormatError, match="cut short"):
        decompress(data[:-20], "deflate", 9, 256)


@settings(max_examples=60, deadline=None)
@given(
    compression=st.sampled_from(["none", "deflate", "zstd"]),
    filter=st.sampled_from(["none", "parent", "neighbor"]),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=6),
)
def test_flipped_bits_in_every_encoding(compression: str, filter: str, flips: list[tuple[int, int]]) -> None:
    damaged_reads_end_well(read_vxz, packed(40, compression=compression, filter=filter), None, flips)
