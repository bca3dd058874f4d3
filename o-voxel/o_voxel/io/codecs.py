"""The byte compressors of vxz streams; unpacking never makes more bytes than were asked for."""

from __future__ import annotations

import io
import lzma
import zlib

from ..errors import ArgumentError, FormatError

DEFAULT_LEVELS = {"none": 0, "deflate": 9, "lzma": 9, "zstd": 22}
_LEVELS = {"none": range(1), "deflate": range(1, 10), "lzma": range(1, 10), "zstd": range(-7, 23)}
_LZMA_DICTIONARY = [1 << 18, *(m << 20 for m in (1, 2, 4, 4, 8, 8, 16, 32, 64))]  # of the presets


def checked_level(name: str, level: int | None) -> int:
    """The level really used; None and 0 mean the default."""
    if name not in DEFAULT_LEVELS:
        raise ArgumentError(f"unknown compression {name!r}: one of {', '.join(DEFAULT_LEVELS)}")
    if not level or name == "none":
        return DEFAULT_LEVELS[name]
    if level not in _LEVELS[name]:
        raise ArgumentError(
            f"{name} has levels {_LEVELS[name].start} to {_LEVELS[name].stop - 1}; got {level}"
        )
    return level


def compress(data: bytes, name: str, level: int) -> bytes:
    """Raw deflate, raw LZMA or a zstd frame; any other name leaves the data as they are."""
    if name == "deflate":
        packer = zlib.compressobj(level, zlib.DEFLATED, -15)
        return packer.compress(data) + packer.flush()
    if name == "lzma":
        # A dictionary beyond the data only costs memory and time; readers build theirs from the level.
        window = max(1 << 12, 1 << (len(data) - 1).bit_length()) if data else 1 << 12
        filters = _lzma_filters(level)
        filters[0]["dict_size"] = min(window, _LZMA_DICTIONARY[level])
        return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    if name == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=level).compress(data)
    return data


def decompress(data: bytes, name: str, level: int, limit: int) -> bytes:
    """Unpack a stream of at most `limit` bytes.

    Raises:
        FormatError: damaged, cut short, or longer than `limit`.
    """
    try:
        if name == "deflate":
            unpacker = zlib.decompressobj(-15)
            out, whole = unpacker.decompress(data, limit + 1), True
            whole = unpacker.eof or len(out) > limit
        elif name == "lzma":
            reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_lzma_filters(level))
            out = reader.decompress(data, limit + 1)
            whole = reader.eof or len(out) > limit
        elif name == "zstd":
            out, whole = _zstd(data, limit), True
        else:
            out, whole = data, True
    except (zlib.error, lzma.LZMAError, EOFError, MemoryError) as error:
        raise FormatError(f"a {name} stream is damaged: {error}") from error
    if len(out) > limit:
        raise FormatError(f"a {name} stream unpacks to more than the {limit} bytes that it may hold")
    if not whole:
        raise FormatError(f"a {name} stream is cut short")
    return out


def _zstd(data: bytes, limit: int) -> bytes:
    import zstandard

    try:
        # A reader, since one-shot unpacking trusts the size that the frame declares.
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            return reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise FormatError(f"a zstd stream is damaged: {error}") from error


def _lzma_filters(level: int) -> list[dict[str, int]]:
    return [{"id": lzma.FILTER_LZMA2, "preset": level}]
