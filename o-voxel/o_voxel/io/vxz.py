"""vxz: chunks of voxels, each an octree and compressed attribute streams, behind a JSON header."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError, FormatError
from ..serialize import decode_seq, encode_seq
from .codecs import checked_level, compress, decompress
from .files import MAX_BYTES, File, Voxels, as_tensor, checked_voxels, opened
from .neighbours import predict_from_neighbours, restore_from_neighbours
from .octree import decode_octree, encode_octree, predict_from_siblings, restore_from_siblings
from .vxz_header import (
    FILTERS,
    INTERLEAVINGS,
    MAGIC,
    MAX_CHUNK_SIZE,
    ChunkEntry,
    Header,
    pack_header,
    parse_header,
    read_header_bytes,
    stream_layout,
)

T = TypeVar("T")
R = TypeVar("R")


def write_vxz(
    file: File,
    coord: Tensor,
    attr: Mapping[str, Tensor],
    chunk_size: int = 256,
    filter: str = "none",
    compression: str = "lzma",
    compression_level: int | None = None,
    attr_interleave: str = "as_is",
    num_threads: int = -1,
) -> None:
    """Write voxels as vxz; they are reordered by chunk, then along the z-order curve.

    Args:
        file: a path or a binary file.
        coord: integer `[N, 3]`, distinct.
        attr: uint8 `[N, C]` by name; `idx`, `ptr` and `svo` are taken.
        chunk_size: voxels a chunk side, a power of two from 2 to 1024.
        filter: prediction of attributes: `none`, `parent` (octree siblings) or `neighbor` (voxels before in
        space).
        compression: `none`, `deflate`, `lzma` or `zstd`.
        compression_level: None or 0 for the default (9, 9, 22).
        attr_interleave: a stream an attribute (`as_is`), a channel (`none`), or one for all (`all`).
        num_threads: threads over chunks, -1 for all cores.
    Raises:
        ArgumentError: any of these broken.
    """
    coords, attrs = checked_voxels(coord, attr)
    depth = chunk_size.bit_length() - 1
    if not 2 <= chunk_size <= MAX_CHUNK_SIZE or chunk_size != 1 << depth:
        raise ArgumentError(f"chunk_size must be a power of two from 2 to {MAX_CHUNK_SIZE}; got {chunk_size}")
    if filter not in FILTERS or attr_interleave not in INTERLEAVINGS:
        raise ArgumentError(
            f"filter {filter!r} (one of {', '.join(FILTERS)}), "
            f"attr_interleave {attr_interleave!r} (one of {', '.join(INTERLEAVINGS)})"
        )
    level = checked_level(compression, compression_level)
    for name, array in attrs.items():
        if array.dtype != np.uint8:
            raise ArgumentError(f"attribute {name!r} has dtype {array.dtype}; vxz holds uint8")
    if coords.size and (coords.min() < -(1 << 31) or coords.max() >= 1 << 31):
        raise ArgumentError(f"coordinates span {coords.min()} to {coords.max()}: more than 32 bits")
    layout = stream_layout([(name, a.shape[1]) for name, a in attrs.items()], attr_interleave, ArgumentError)

    chunk, local = coords // chunk_size, coords % chunk_size
    code = encode_seq(torch.from_numpy(local)).numpy().astype(np.int64)
    order = np.lexsort((code, *chunk.T[::-1]))
    chunk, local, code = chunk[order], local[order], code[order]
    new_chunk = (np.diff(chunk, axis=0) != 0).any(axis=1)
    if len(code) > 1 and ((np.diff(code) == 0) & ~new_chunk).any():
        raise ArgumentError("some voxels are listed twice: remove duplicates first")
    bounds = [0, *(np.flatnonzero(new_chunk) + 1).tolist(), len(code)] if len(code) else [0]
    matrix = np.concatenate([np.zeros((len(code), 0), np.uint8), *(a[order] for a in attrs.values())], axis=1)

    def pack(part: slice) -> tuple[list[int], list[bytes]]:
        tree = encode_octree(code[part], depth)
        rows = matrix[part]
        if filter == "parent":
            rows = predict_from_siblings(tree, rows)
        elif filter == "neighbor":
            rows = predict_from_neighbours(local[part], rows)
        raw = [tree.data.tobytes(), *(np.ascontiguousarray(rows[:, cut]).tobytes() for _, cut in layout)]
        return chunk[part.start].tolist(), [compress(stream, compression, level) for stream in raw]

    parts = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    packed = _map(pack, parts, num_threads)
    fields = {
        "num_voxel": len(code),
        "chunk_size": chunk_size,
        "filter": filter,
        "compression": compression,
        "compression_level": level,
        "raw_size": 12 * len(code) + matrix.size,
        "attr_interleave": attr_interleave,
        "attr": [[name, a.shape[1]] for name, a in attrs.items()],
    }
    header = pack_header(fields, ["svo", *(name for name, _ in layout)], packed)
    with opened(file, "wb") as handle:
        handle.write(MAGIC + (8 + len(header)).to_bytes(4, "big") + header)
        for _, streams in packed:
            handle.writelines(streams)


def read_vxz_info(file: File) -> dict[str, Any]:
    """The JSON header of a vxz file as a dict; reads no voxels.

    Raises:
        FormatError: not a vxz file.
    """
    with opened(file, "rb") as handle:
        return read_header_bytes(handle)[0]


def read_vxz(file: File, num_threads: int = -1, max_bytes: int = MAX_BYTES) -> Voxels:
    """Read a vxz file.

    Args:
        file: a path or a binary file.
        num_threads: threads over chunks, -1 for all cores.
        max_bytes: most bytes that the voxels may take.
    Returns:
        coordinates int32 `[N, 3]` in the file's chunk order and attributes uint8 `[N, C]` by name.
    Raises:
        FormatError: not such a file, damaged, or larger than allowed.
    """
    with opened(file, "rb") as handle:
        fields, _ = read_header_bytes(handle)
        header = parse_header(fields, max_bytes)
        body = _read_body(handle, header)

    def unpack(entry: ChunkEntry) -> tuple[np.ndarray, np.ndarray]:
        return _unpack_chunk(body[entry.start : entry.start + entry.length], entry, header)

    chunks = _map(unpack, header.chunks, num_threads)
    total = sum(len(coords) for coords, _ in chunks)
    if total != header.num_voxel:
        raise FormatError(f"the header declares {header.num_voxel} voxels, the chunks hold {total}")
    width = sum(channels for _, channels in header.attrs)
    coords = np.concatenate([np.zeros((0, 3), np.int32), *(c for c, _ in chunks)])
    rows = np.concatenate([np.zeros((0, width), np.uint8), *(r for _, r in chunks)])
    attrs, at = {}, 0
    for name, channels in header.attrs:
        attrs[name] = as_tensor(rows[:, at : at + channels])
        at += channels
    return as_tensor(coords), attrs


def _read_body(handle: IO[bytes], header: Header) -> bytes:
    declared = max((entry.start + entry.length for entry in header.chunks), default=0)
    # Stored bytes beyond what the chunks use are of no interest, so the file's own length is never trusted.
    body = handle.read(declared)
    if len(body) < declared:
        raise FormatError(f"the chunks take {declared} bytes, but {len(body)} follow the header")
    return body


def _unpack_chunk(data: bytes, entry: ChunkEntry, header: Header) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates `[n, 3]` and attribute rows `[n, C]` of one chunk."""

    def stream(place: tuple[int, int], limit: int) -> np.ndarray:
        start, length = place
        raw = decompress(data[start : start + length], header.compression, header.level, limit)
        return np.frombuffer(raw, np.uint8)

    depth = header.chunk_size.bit_length() - 1
    most_nodes = min(header.num_voxel * depth, ((1 << (3 * depth)) - 1) // 7)
    tree = decode_octree(stream(entry.svo, most_nodes), depth, header.num_voxel)
    count = len(tree.codes)
    local = decode_seq(torch.from_numpy(tree.codes)).numpy()
    rows = np.empty((count, sum(channels for _, channels in header.attrs)), np.uint8)
    for (name, cut), place in zip(header.layout, entry.streams, strict=True):
        size = count * (cut.stop - cut.start)
        values = stream(place, size)
        if len(values) != size:
            raise FormatError(f"stream {name!r} of a chunk holds {len(values)} bytes for {size} values")
        rows[:, cut] = values.reshape(count, -1)
    if header.filter == "parent":
        rows = restore_from_siblings(tree, rows)
    elif header.filter == "neighbor":
        rows = restore_from_neighbours(local.astype(np.int64), rows)
    return (local + np.array(entry.index) * header.chunk_size).astype(np.int32), rows


def _map(call: Callable[[T], R], items: list[T], num_threads: int) -> list[R]:
    """`map` over threads; the compressors release the interpreter lock."""
    threads = (os.cpu_count() or 1) if num_threads < 1 else num_threads
    if threads == 1 or len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(call, items))
