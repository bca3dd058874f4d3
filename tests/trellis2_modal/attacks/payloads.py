"""Pictures and states that cost a careless reader minutes or gigabytes."""

from __future__ import annotations

import io
import json
import struct
import zlib

import lz4.frame
import numpy as np
from PIL import Image

from tests.trellis2_modal.shapes import dual_grid
from trellis2_modal.protocol.limits import MAX_IMAGE_BYTES
from trellis2_modal.protocol.state import pack_state
from trellis2_modal.protocol.state.container import read_container


def png(*chunks: bytes, size: int = 64) -> bytes:
    """A small PNG with more chunks before its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 90, 40)).save(buffer, "PNG")
    whole = buffer.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:]


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(*segments: bytes, size: int = 64) -> bytes:
    """A small JPEG with more segments behind its first marker."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 90, 40)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    return whole[:2] + b"".join(segments) + whole[2:]


def segment(code: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


def fill_up(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit))


def quadratic_exif(size: int, entries: int) -> bytes:
    """A TIFF of `size` bytes whose every entry is nearly all of it."""
    values = b"".join(struct.pack("<HHII", 0x1000 + n % 0xE000, 7, size - 64, 8) for n in range(entries))
    head = b"II*\0" + struct.pack("<IH", 8, entries) + values + struct.pack("<I", 0)
    return head + bytes(size - len(head))


def progressive_scans(count: int, size: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 90, 40)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * count + whole[-2:]


def hostile_pictures(size: int = MAX_IMAGE_BYTES - 4096) -> dict[str, bytes]:
    """Pictures of about `size` bytes by what is wrong with them."""
    deep = min(size, 60_000)
    exif = quadratic_exif(deep, min(4_000, deep // 16))
    return {
        "jpeg comments": jpeg(fill_up(segment(0xFE), size)),
        "jpeg restarts": jpeg(fill_up(b"\xff\xd0", size)),
        "jpeg fill bytes": jpeg(b"\xff" * size),
        "jpeg exif blocks": jpeg(fill_up(segment(0xE1, b"Exif\0\0" + bytes(deep)), size)),
        "jpeg quadratic exif": jpeg(segment(0xE1, b"Exif\0\0" + exif)),
        "jpeg scans": progressive_scans(max(200, size // 400)),
        "png empty chunks": png(fill_up(png_chunk(b"teXt"), size)),
        "png empty pixels": png(fill_up(png_chunk(b"IDAT"), size)),
        "png quadratic exif": png(png_chunk(b"eXIf", quadratic_exif(size, min(60_000, size // 16)))),
        "png text bombs": png(fill_up(png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20), 9)), size)),
        "webp chunks": webp(fill_up(b"JUNK\0\0\0\0", size)),
        "webp exif": webp(riff_chunk(b"EXIF", quadratic_exif(size, min(60_000, size // 16)))),
    }


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp(extra: bytes) -> bytes:
    """A small lossless WebP with more chunks behind its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 90, 40)).save(buffer, "WEBP", lossless=True)
    body = buffer.getvalue()[8:] + extra
    return b"RIFF" + struct.pack("<I", len(body)) + body


def state_bomb(packed_bytes: int = 700 << 20, block: int = 4 << 20) -> bytes:
    """A state of some MB whose header is sound and whose tensor is `packed_bytes` of zeros."""
    _, header = read_container(pack_state(dual_grid(8)))
    text = json.dumps(header)
    table = {
        "__metadata__": {"state": text},
        "zeros": {"dtype": "U8", "shape": [packed_bytes], "data_offsets": [0, packed_bytes]},
    }
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    size = 8 + len(head) + packed_bytes
    compressor = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX4MB)
    pieces = [compressor.begin(size), compressor.compress(struct.pack("<Q", len(head)) + head)]
    zeros = np.zeros(block, np.uint8).tobytes()
    for at in range(0, packed_bytes, block):
        pieces.append(compressor.compress(zeros[: packed_bytes - at]))
    return b"".join([*pieces, compressor.flush()])
