"""The coding-independent code points (ITU-T H.273) of a PNG, AVIF or HEIC, which Pillow does not read."""

from __future__ import annotations

import struct
from collections.abc import Iterator

MOST_CHUNKS = 1000
"""Chunks or boxes before the pixels; a file with more is not looked at further."""

_COLOUR_BOX = (b"meta", b"iprp", b"ipco", b"colr")


def coding_points(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer function that a file names; None where it names none."""
    if data.startswith(b"\x89PNG"):
        return _of_png(data)
    if data[4:8] != b"ftyp":
        return None
    spans = [(0, len(data))]
    for wanted in _COLOUR_BOX:
        head = 4 if wanted == b"meta" else 0  # the one of them that has a version and flags first
        inside = (box for start, end in spans for box in _boxes(data, start, end))
        spans = [(start + head, end) for kind, start, end in inside if kind == wanted]
    for start, end in spans:
        body = data[start:end]
        if body[:4] == b"nclx" and len(body) >= 8:
            primaries, transfer = struct.unpack(">HH", body[4:8])
            return primaries, transfer
    return None


def _of_png(data: bytes) -> tuple[int, int] | None:
    position = 8
    for _ in range(MOST_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return None
        size = struct.unpack(">I", head[:4])[0]
        if head[4:] == b"cICP":
            body = data[position + 8 : position + 8 + size]
            return (body[0], body[1]) if len(body) == 4 else None
        position += 12 + size
    return None


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind and body of each box of an ISO base media file in a span; ends at one that is malformed."""
    for _ in range(MOST_CHUNKS):
        if start + 8 > end:
            return
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        body = start + 8
        if size == 1 and start + 16 <= end:
            size, body = struct.unpack(">Q", data[start + 8 : start + 16])[0], start + 16
        stop = end if size == 0 else start + size
        if not body <= stop <= end:
            return
        yield kind, body, stop
        start = stop
