"""The header of vxz files: written key by key, and read without believing any number in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from ..errors import FormatError
from .codecs import checked_level

MAGIC = b"VXZ\x00"
MAX_HEADER = 1 << 26
MAX_CHUNK_SIZE = 1024  # ten bits an axis in the z-order code
MAX_CHANNELS = 1 << 12
FILTERS = ("none", "parent", "neighbor")
INTERLEAVINGS = ("as_is", "none", "all")
_RESERVED = ("idx", "ptr", "svo")

Place = tuple[int, int]  # offset and length in bytes
Layout = list[tuple[str, slice]]  # streams by name, with the attribute columns each holds


@dataclass(frozen=True)
class ChunkEntry:
    """Where one chunk's streams are; `start` and `length` in the body, the others in the chunk."""

    index: tuple[int, int, int]
    start: int
    length: int
    svo: Place
    streams: list[Place]


@dataclass(frozen=True)
class Header:
    """A header whose numbers have been checked against each other."""

    num_voxel: int
    chunk_size: int
    filter: str
    compression: str
    level: int
    attrs: list[tuple[str, int]]
    layout: Layout
    chunks: list[ChunkEntry]


def stream_layout(attrs: Sequence[tuple[str, int]], interleave: str, error: type[Exception]) -> Layout:
    """The attribute streams of a chunk in order; raises `error` for names that cannot be told apart."""
    layout: Layout = []
    at = 0
    for name, channels in attrs:
        if interleave == "none":
            layout += [(f"{name}_{k}", slice(at + k, at + k + 1)) for k in range(channels)]
        elif interleave == "as_is":
            layout.append((name, slice(at, at + channels)))
        at += channels
    if interleave == "all":
        layout = [("attr", slice(0, at))]
    names = [name for name, _ in layout]
    given = [name for name, _ in attrs]
    if len(set(names)) != len(names) or len(set(given)) != len(given) or set(_RESERVED) & {*names, *given}:
        raise error(f"attributes {given[:8]}: names must differ and not be {', '.join(_RESERVED)}")
    return layout


def pack_header(
    fields: dict[str, Any], names: Sequence[str], packed: Sequence[tuple[list[int], list[bytes]]]
) -> bytes:
    """The JSON of a file with these chunks: their index and their streams in the order of `names`."""
    chunks: list[dict[str, Any]] = []
    start = 0
    for index, streams in packed:
        entry: dict[str, Any] = {"idx": index}
        at = 0
        for name, stream in zip(names, streams, strict=True):
            entry[name] = [at, len(stream)]
            at += len(stream)
        entry["ptr"] = [start, at]
        start += at
        chunks.append(entry)
    ratio = fields["raw_size"] / start if start else 0.0
    out: dict[str, Any] = {}
    for key, value in fields.items():
        out[key] = value
        if key == "raw_size":
            out |= {"compressed_size": start, "compress_ratio": ratio}
    return json.dumps(out | {"chunks": chunks}).encode()


def read_header_bytes(handle: IO[bytes]) -> tuple[dict[str, Any], int]:
    """The JSON object and the offset of the body.

    Raises:
        FormatError: another file type or version, a header that is cut short or not JSON.
    """
    head = handle.read(8)
    if head[:3] != MAGIC[:3]:
        raise FormatError("Invalid file type: not a vxz file")
    if head[3:4] != MAGIC[3:]:
        raise FormatError(f"Invalid file version {head[3:4].hex() or 'missing'}: version 00 is read")
    offset = int.from_bytes(head[4:], "big")
    if len(head) < 8 or not 8 <= offset <= MAX_HEADER:
        raise FormatError(f"the body is said to begin at byte {offset}; between 8 and {MAX_HEADER} is read")
    text = handle.read(offset - 8)
    if len(text) != offset - 8:
        raise FormatError(f"the header takes {offset - 8} bytes, but {len(text)} are there")
    try:
        fields = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise FormatError("the header is not a JSON object")
    return fields, offset


def parse_header(fields: dict[str, Any], max_bytes: int) -> Header:
    """Check a header's fields.

    Raises:
        FormatError: a field is missing, of another type, or more than `max_bytes` would be unpacked.
    """
    chunk_size = _integer(fields, "chunk_size", 2, MAX_CHUNK_SIZE)
    if chunk_size & (chunk_size - 1):
        raise FormatError(f"chunk_size {chunk_size} is not a power of two")
    attrs = _attributes(fields.get("attr"))
    row = 12 + sum(channels for _, channels in attrs)
    count = _integer(fields, "num_voxel", 0, 1 << 40)
    if count * row > max_bytes:
        raise FormatError(f"{count} voxels take {count * row} bytes, more than {max_bytes}: raise max_bytes")
    interleave = _choice(fields, "attr_interleave", INTERLEAVINGS)
    compression = _choice(fields, "compression", ("none", "deflate", "lzma", "zstd"))
    level = _integer(fields, "compression_level", -7, 22)
    try:
        level = checked_level(compression, level)
    except ValueError as error:
        raise FormatError(str(error)) from error
    layout = stream_layout(attrs, interleave, FormatError)
    chunks = fields.get("chunks")
    if not isinstance(chunks, list) or len(chunks) > count:
        raise FormatError("chunks must be a list with no more entries than voxels")
    entries = [_chunk(chunk, [name for name, _ in layout], chunk_size) for chunk in chunks]
    if len({entry.index for entry in entries}) != len(entries):
        raise FormatError("a chunk is listed twice")
    filter_name = _choice(fields, "filter", FILTERS)
    return Header(count, chunk_size, filter_name, compression, level, attrs, layout, entries)


def _attributes(value: Any) -> list[tuple[str, int]]:
    if not isinstance(value, list) or len(value) > MAX_CHANNELS:
        raise FormatError("attr must be a list of names and channel counts")
    attrs = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
            raise FormatError("each entry of attr must be [name, channels]")
        if type(item[1]) is not int or not 0 <= item[1] <= MAX_CHANNELS:
            raise FormatError(f"attribute {item[0][:40]!r} has {str(item[1])[:20]} channels")
        attrs.append((item[0], item[1]))
    if sum(channels for _, channels in attrs) > MAX_CHANNELS:
        raise FormatError(f"more than {MAX_CHANNELS} channels")
    return attrs


def _chunk(value: Any, names: list[str], chunk_size: int) -> ChunkEntry:
    if not isinstance(value, dict):
        raise FormatError("a chunk entry is not an object")
    limit = (1 << 31) // chunk_size
    index = value.get("idx")
    if not isinstance(index, list) or len(index) != 3:
        raise FormatError("a chunk's idx is not three integers")
    if not all(type(c) is int and -limit <= c < limit for c in index):
        raise FormatError(f"chunk {str(index)[:60]} lies outside 32-bit coordinates")
    start, length = _place(value, "ptr", 1 << 48)
    svo = _place(value, "svo", length)
    streams = [_place(value, name, length) for name in names]
    return ChunkEntry((index[0], index[1], index[2]), start, length, svo, streams)


def _place(entry: dict[str, Any], name: str, size: int) -> Place:
    value = entry.get(name)
    if not isinstance(value, list) or len(value) != 2 or not all(type(v) is int and v >= 0 for v in value):
        raise FormatError(f"stream {name!r} of a chunk has no [offset, length]")
    if value[0] + value[1] > size:
        raise FormatError(f"stream {name!r} ends at byte {value[0] + value[1]} of {size}")
    return value[0], value[1]


def _integer(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not low <= value <= high:
        raise FormatError(f"{name} must be an integer from {low} to {high}; got {str(value)[:40]}")
    return value


def _choice(fields: dict[str, Any], name: str, known: Sequence[str]) -> str:
    value = fields.get(name)
    if value not in known or not isinstance(value, str):
        raise FormatError(f"{name} must be one of {', '.join(known)}; got {str(value)[:40]!r}")
    return value
