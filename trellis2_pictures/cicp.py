"""The coding-independent code points (ITU-T H.273) of a PNG, which Pillow does not read."""

from __future__ import annotations

import struct

MOST_CHUNKS = 1000
"""Before the pixels; a file with more is not looked at further."""


def coding_points(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer function of a PNG file's cICP chunk; None where there is none."""
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
