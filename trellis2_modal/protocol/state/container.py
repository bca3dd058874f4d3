"""How a state is framed: an LZ4 frame around a safetensors container with a JSON header.

A stranger's bytes enter here, so sizes are compared before anything is allocated, and numbers from the
header are only used after they agree with the bytes that are there.
"""

from __future__ import annotations

import json
from typing import Any

import lz4.frame
import numpy as np
import safetensors.numpy

from ..limits import MAX_STATE_BYTES, MAX_STATE_HEADER_BYTES, MAX_STATE_RAW_BYTES, MIB
from .mesh_state import bad_state

METADATA_KEY = "state"
MAX_TENSORS = 64
LZ4_MAX_RATIO = 256
"""More than LZ4 can ever shrink by: a frame that declares more is lying."""

FRAME_HEADER = 32
"""Bytes that hold the header of an LZ4 frame (19 at most)."""

MAX_BLOCK = 4 * MIB + 8
PIECE = 64 * 1024

DTYPES: dict[str, np.dtype] = {
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
}


def compress_state(packed: bytes) -> bytes:
    """LZ4 frame of a packed state, with its size and a checksum in the frame."""
    frame: bytes = lz4.frame.compress(
        packed, block_size=lz4.frame.BLOCKSIZE_MAX4MB, content_checksum=True, store_size=True
    )
    return frame


def declared_size(data: bytes, ceiling: int = MAX_STATE_RAW_BYTES) -> int:
    """The packed bytes that an LZ4 frame declares, once they are believable; raises `InvalidStateError`."""
    if len(data) > MAX_STATE_BYTES:
        raise bad_state("frame", f"is {len(data)} bytes, the most is {MAX_STATE_BYTES}")
    try:
        declared = int(lz4.frame.get_frame_info(data[:FRAME_HEADER])["content_size"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise bad_state("frame", "is not an LZ4 frame") from error
    if not 8 < declared <= ceiling:
        raise bad_state("frame", f"declares {declared} bytes, allowed is 9 to {ceiling}")
    if declared > LZ4_MAX_RATIO * len(data) + MIB:
        raise bad_state("frame", f"declares {declared} bytes out of {len(data)}, more than LZ4 can hold")
    return declared


def decompress_state(data: bytes, ceiling: int = MAX_STATE_RAW_BYTES) -> bytes:
    """The packed state in an LZ4 frame; raises `InvalidStateError`, never allocates above `ceiling`."""
    declared = declared_size(data, ceiling)
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        packed: bytes = decompressor.decompress(data, max_length=declared)
    except (RuntimeError, EOFError, MemoryError) as error:
        raise bad_state("frame", "is damaged") from error
    if len(packed) != declared or not decompressor.eof or decompressor.unused_data:
        raise bad_state("frame", f"is not complete: {len(packed)} of {declared} bytes")
    return packed


def decompress_start(data: bytes, size: int) -> bytes:
    """The first `size` packed bytes (fewer if there are no more), inflating one block of the frame at most
    more than that; raises `InvalidStateError`."""
    size = min(size, declared_size(data))
    decompressor = lz4.frame.LZ4FrameDecompressor()
    start = b""
    try:
        for at in range(0, min(len(data), FRAME_HEADER + MAX_BLOCK + size), PIECE):
            start += decompressor.decompress(data[at : at + PIECE], max_length=size - len(start))
            if len(start) >= size or decompressor.eof:
                break
    except (RuntimeError, EOFError, MemoryError) as error:
        raise bad_state("frame", "is damaged") from error
    if len(start) != size:
        raise bad_state("frame", f"is not complete: its first {size} bytes are missing")
    return start


def write_container(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> bytes:
    """A safetensors file whose metadata holds the JSON header."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False)
    return safetensors.numpy.save(tensors, metadata={METADATA_KEY: text})


def read_container(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors (views into `data`) and the JSON header; raises `InvalidStateError`.

    The layout is read here and not by the library so that every mismatch can be named.
    """
    layout, header, start = _read_layout(data, len(data))
    body = memoryview(data)[start:]
    tensors = {
        name: np.frombuffer(body[span[0] : span[1]], dtype=dtype).reshape(shape)
        for name, (dtype, shape, span) in layout.items()
    }
    return tensors, header


def read_header(data: bytes) -> dict[str, Any]:
    """The JSON header of a compressed state, whose layout fits its declared size; inflates no tensors."""
    size = declared_size(data)
    start = decompress_start(data, 8 + MAX_STATE_HEADER_BYTES)
    return _read_layout(start, size)[1]


Layout = dict[str, tuple["np.dtype[Any]", list[int], tuple[int, int]]]


def _read_layout(start: bytes, size: int) -> tuple[Layout, dict[str, Any], int]:
    """Type, shape and span of each tensor, the JSON header, and where the tensors begin.

    `start` holds the header at least, of a container of `size` bytes.
    """
    if size < 8:
        raise bad_state("container", f"is {size} bytes, too few for a header")
    length = int.from_bytes(start[:8], "little")
    if length > min(MAX_STATE_HEADER_BYTES, size - 8):
        raise bad_state("container", f"declares a header of {length} bytes in {size}")
    table = _json(start[8 : 8 + length], "container")
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
        raise bad_state("container", f"has no metadata named {METADATA_KEY}")
    if len(table) > MAX_TENSORS:
        raise bad_state("container", f"holds {len(table)} tensors, the most is {MAX_TENSORS}")
    body = size - 8 - length
    layout = {name: _tensor(name, entry, body) for name, entry in table.items()}
    end = 0
    for first, stop in sorted(span for _, _, span in layout.values()):
        if first != end:
            raise bad_state("container", f"has a gap or an overlap at byte {first} (expected {end})")
        end = stop
    if end != body:
        raise bad_state("container", f"has {body} bytes of tensors, its header accounts for {end}")
    return layout, _json(metadata[METADATA_KEY], "header"), 8 + length


def _tensor(name: str, entry: object, body: int) -> tuple[np.dtype[Any], list[int], tuple[int, int]]:
    if not isinstance(entry, dict):
        raise bad_state(name, "has no entry of its own in the header")
    dtype = DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise bad_state(name, f"has dtype {str(entry.get('dtype'))[:20]}, known are {', '.join(DTYPES)}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _naturals(shape, 1, 3) or not _naturals(offsets, 2, 2):
        raise bad_state(name, "has a shape or offsets that are not whole numbers")
    start, stop = offsets  # type: ignore[misc]
    size = dtype.itemsize
    for extent in shape:  # type: ignore[union-attr]
        size *= extent
    if not start <= stop <= body or stop - start != size:
        raise bad_state(name, f"needs {size} bytes, has {stop - start} of {body}")
    return dtype, shape, (start, stop)  # type: ignore[return-value]


def _naturals(values: object, least: int, most: int) -> bool:
    return (
        isinstance(values, list)
        and least <= len(values) <= most
        and all(type(v) is int and 0 <= v < 2**40 for v in values)
    )


def _json(text: bytes | str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_state(where, "is not JSON") from error
    if not isinstance(value, dict):
        raise bad_state(where, "is not a JSON object")
    return value
