"""The bytes of a picture before any decoder sees them: kind, size, and a structure of sane proportions.

Time is linear in the file and the number of steps is bounded, whatever the bytes are: decoders are neither.
Of JPEG (ITU T.81), PNG (third edition) and WebP (RFC 9649) only the framing is read, of EXIF (TIFF 6.0) the
directories. Every function raises `Malformed` with a message that completes "the picture ...".
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

MAX_SEGMENTS = 1_000
"""JPEG markers, WebP chunks, and PNG chunks other than IDAT."""

MIN_IDAT = 2_048
"""Bytes that IDAT chunks have on average; common encoders write 8 KiB and more."""

MAX_FILL = 4_096
"""Fill bytes between JPEG segments."""

MAX_SCANS = 100
"""Scans of a progressive JPEG, each of which is a pass over the whole picture; usual are about ten."""

MAX_EXIF_BLOCKS = 2
MAX_EXIF_BYTES = 256 << 10
MAX_EXIF_ENTRIES = 1_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_HEADER = b"Exif\0\0"
SOI, EOI, SOS, APP1 = 0xD8, 0xD9, 0xDA, 0xE1
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
NEXT_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
EXIF_SUB_DIRECTORIES = (0x8769, 0x8825, 0xA005)
EXIF_VALUE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)


class Malformed(ValueError):  # noqa: N818  (what the file is)
    """The file is not what its first bytes say, or out of all proportion."""


def scan(data: bytes) -> tuple[str, int, int]:
    """Pillow's name of the format (PNG, JPEG, WEBP), width and height."""
    if data.startswith(PNG_SIGNATURE):
        return "PNG", *_scan_png(memoryview(data))
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", *_scan_jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", *_scan_webp(memoryview(data))
    raise Malformed("is not a readable PNG, JPEG or WebP")


# --- PNG ----------------------------------------------------------------------------------------------------


def _scan_png(data: memoryview) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    idat = others = 0
    once: set[bytes] = set()
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = bytes(data[at + 4 : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise Malformed("has a PNG chunk with a wrong checksum")
        idat, others = (idat + 1, others) if kind == b"IDAT" else (idat, others + 1)
        if others > MAX_SEGMENTS or idat > MAX_SEGMENTS + end // MIN_IDAT:
            raise Malformed("is a PNG cut into far too many chunks")
        if kind in (b"IHDR", b"PLTE", b"iCCP", b"eXIf"):
            if kind in once:
                raise Malformed("is a PNG that says twice what may be said once")
            once.add(kind)
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise Malformed("is a PNG that does not begin with its header")
            size = struct.unpack(">II", data[at + 8 : at + 16])
        elif kind == b"eXIf":
            _check_exif(bytes(data[at + 8 : end]))
        if kind == b"IEND":
            if not idat:
                break
            return size
        at = end + 4
    raise Malformed("is not a whole PNG")


# --- JPEG ---------------------------------------------------------------------------------------------------


def _scan_jpeg(data: bytes) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    scans = exifs = fill = 0
    at = 2
    for _ in range(MAX_SEGMENTS):
        if scans:  # entropy-coded data lies before the next marker
            found = NEXT_MARKER.search(data, at)
            if found is None:
                break  # cut short: a decoder shows what there is
            at = found.start()
        marker = at
        while data[at : at + 2] == b"\xff\xff" and fill <= MAX_FILL:
            at, fill = at + 1, fill + 1
        if fill > MAX_FILL or data[at : at + 1] != b"\xff" or at + 2 > len(data):
            raise Malformed("is a JPEG with bytes between its segments")
        code = data[at + 1]
        at += 2
        if code == EOI:
            break
        if code == SOI or code == 0:
            raise Malformed(f"is a JPEG with a misplaced marker at byte {marker}")
        if code in STANDALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            if scans:
                break
            raise Malformed("is not a whole JPEG")
        body = data[at + 2 : at + length]
        if code in FRAMES:
            if size is not None or len(body) < 6:
                raise Malformed("is a JPEG with more than one frame")
            height, width = struct.unpack(">HH", body[1:5])
            size = (width, height)
        elif code == APP1 and body.startswith(EXIF_HEADER):
            exifs += 1
            if exifs > MAX_EXIF_BLOCKS:
                raise Malformed("has too many blocks of EXIF data")
            if exifs == 1:
                _check_exif(body[len(EXIF_HEADER) :])
        elif code == SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise Malformed(f"is a JPEG of more than {MAX_SCANS} scans")
        at += length
    else:
        raise Malformed("is a JPEG cut into far too many segments")
    if size is None or not scans:
        raise Malformed("is not a whole JPEG")
    return size


# --- WebP ---------------------------------------------------------------------------------------------------


def _scan_webp(data: memoryview) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    stop = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    at, pixels = 12, False
    for number in range(MAX_SEGMENTS + 1):
        if at + 8 > stop:
            break
        kind = bytes(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise Malformed("is not a whole WebP")
        if number == 0:
            size = _webp_size(kind, body)
        pixels = pixels or kind in (b"VP8 ", b"VP8L", b"ANMF")
        if kind == b"EXIF":
            _check_exif(bytes(body).removeprefix(EXIF_HEADER))
        at += 8 + length + length % 2
    else:
        raise Malformed("is a WebP cut into far too many chunks")
    if size is None or not pixels:
        raise Malformed("is not a whole WebP")
    return size


def _webp_size(kind: bytes, body: memoryview) -> tuple[int, int]:
    head = bytes(body[:10])
    if kind == b"VP8X" and len(head) == 10:
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a" and len(head) == 10:
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[:1] == b"\x2f":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise Malformed("is a WebP that does not begin with its header")


# --- EXIF ---------------------------------------------------------------------------------------------------


def _check_exif(tiff: bytes) -> None:
    """Bounds on what a reader copies: entries, and the bytes of their values in all.

    Entries may share bytes, so that 256 KiB can ask for gigabytes.
    """
    if len(tiff) > MAX_EXIF_BYTES:
        raise Malformed(f"has {len(tiff)} bytes of EXIF data, the most is {MAX_EXIF_BYTES}")
    entries = copied = 0
    for count, kind, amount in _exif_entries(tiff):
        entries += count
        copied += amount * (EXIF_VALUE_BYTES[kind] if kind < len(EXIF_VALUE_BYTES) else 0)
        if entries > MAX_EXIF_ENTRIES or copied > 4 * MAX_EXIF_BYTES:
            raise Malformed("has EXIF data out of all proportion")


def _exif_entries(tiff: bytes) -> Iterator[tuple[int, int, int]]:
    """(1, type, values) of each entry of each directory; directories that are no directories are skipped."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return
    waiting, seen = [struct.unpack(order + "I", tiff[4:8])[0]], set()
    while waiting:
        at = waiting.pop()
        if at in seen or not 8 <= at <= len(tiff) - 2:
            continue
        seen.add(at)
        yield 1, 0, 0  # a directory costs something, too
        count = struct.unpack(order + "H", tiff[at : at + 2])[0]
        end = at + 2 + 12 * count
        for start in range(at + 2, min(end, len(tiff) - 11), 12):
            tag, kind, amount, value = struct.unpack(order + "HHII", tiff[start : start + 12])
            yield 1, kind, amount if kind < len(EXIF_VALUE_BYTES) and amount <= len(tiff) else 0
            if tag in EXIF_SUB_DIRECTORIES:
                waiting.append(value)
        if end + 4 <= len(tiff):
            waiting.append(struct.unpack(order + "I", tiff[end : end + 4])[0])
