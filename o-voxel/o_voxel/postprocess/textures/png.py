"""PNG files written in strips, on all cores.

Pillow chooses each row's filter, and zlib deflates strips that end at whole bytes, which one after the other
are one stream. Only runs are looked for: baked textures hold few other repetitions, and looking for them
takes four times as long. So strips lose nothing by not seeing one another.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np

from ...kernels import on_cpu_threads

_STRIP = 128  # rows, whatever the number of cores: the same picture is the same file everywhere
_LEVEL = 6
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ZLIB_HEADER = b"\x78\x9c"


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W], [H, W, 3] or [H, W, 4] as the bytes of a PNG file."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    count = -(-height // _STRIP)
    filtered, deflated = [b""] * count, [b""] * count

    def encode(number: int) -> None:
        rows = slice(number * _STRIP, min((number + 1) * _STRIP, height))
        filtered[number] = _filtered(image, rows)
        squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
        end = zlib.Z_FINISH if number == count - 1 else zlib.Z_FULL_FLUSH
        deflated[number] = squeeze.compress(filtered[number]) + squeeze.flush(end)

    on_cpu_threads(encode, count)
    checksum = 1
    for strip in filtered:
        checksum = zlib.adler32(strip, checksum)
    deflated[0] = _ZLIB_HEADER + deflated[0]
    deflated[-1] += struct.pack(">I", checksum)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *(_chunk(b"IDAT", data) for data in deflated), _chunk(b"IEND", b"")]
    return b"".join([_SIGNATURE, *chunks])


def _filtered(image: np.ndarray, rows: slice) -> bytes:
    """Rows as they are deflated, each behind its filter's number."""
    from PIL import Image

    first = max(rows.start - 1, 0)  # a row's filter may refer to the row above
    target = BytesIO()
    strip = np.ascontiguousarray(image[first : rows.stop])
    Image.fromarray(strip).save(target, "PNG", compress_level=0)
    data, at, parts = target.getvalue(), len(_SIGNATURE), []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        at += 12 + size
    lines = zlib.decompress(b"".join(parts))
    return lines[(rows.start - first) * (len(lines) // len(strip)) :]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
