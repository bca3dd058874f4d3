"""Pictures that upset decoders never reach one; ordinary ones pass whatever wrote them."""

from __future__ import annotations

import asyncio
import io
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.trellis2_modal.attacks.payloads import (
    hostile_pictures,
    jpeg,
    png,
    png_chunk,
    progressive_scans,
    quadratic_exif,
    segment,
    state_bomb,
)
from tests.trellis2_modal.server import picture
from trellis2_modal.protocol.errors import InvalidImageError, InvalidStateError
from trellis2_modal.protocol.state import decompress_state, peek_state
from trellis2_modal.service.http.pictures import child_process
from trellis2_modal.service.http.pictures.checks import PictureChecks
from trellis2_modal.service.http.pictures.structure import MAX_SEGMENTS, Malformed, scan

HOSTILE = hostile_pictures(1 << 20)


@pytest.mark.parametrize("name", HOSTILE)
def test_absurd_structure_is_refused_at_once(name: str) -> None:
    start = time.process_time()
    if name == "png text bombs":  # few and honest chunks at this size: the decoder's own limits hold
        scan(HOSTILE[name])
    else:
        with pytest.raises(Malformed):
            scan(HOSTILE[name])
    assert time.process_time() - start < 0.2


def encoded(size: int, **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"format": "PNG"},
        {"format": "PNG", "dpi": (72, 72), "icc_profile": bytes(5_000)},
        {"format": "JPEG", "quality": 95, "icc_profile": bytes(200_000)},
        {"format": "JPEG", "progressive": True, "restart_marker_blocks": 1},
        {"format": "JPEG", "quality": 10, "subsampling": 2, "comment": b"x"},
        {"format": "WEBP", "lossless": True},
        {"format": "WEBP", "quality": 60, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
    ],
    ids=str,
)
def test_ordinary_pictures_pass(options: dict[str, object]) -> None:
    assert scan(encoded(160, **options)) == (options["format"], 160, 160)


def test_a_camera_s_exif_and_a_film_behind_the_picture_pass() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG", exif=exif)
    assert scan(buffer.getvalue() + b"\0\0\0\x18ftypmp42" + bytes(100_000)) == ("JPEG", 64, 48)


def test_a_png_in_the_small_chunks_of_libpng_passes() -> None:
    whole = encoded(900, format="PNG")
    at = whole.index(b"IDAT")
    pieces = bytearray()
    pixels = b""
    position = 8
    while position < len(whole):
        length = int.from_bytes(whole[position : position + 4], "big")
        if whole[position + 4 : position + 8] == b"IDAT":
            pixels += whole[position + 8 : position + 8 + length]
        position += 12 + length
    for start in range(0, len(pixels), 4096):
        pieces += png_chunk(b"IDAT", pixels[start : start + 4096])
    small = whole[: at - 4] + bytes(pieces) + png_chunk(b"IEND")
    assert scan(small) == ("PNG", 900, 900)


@pytest.mark.parametrize(
    "data",
    [
        png(png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))),
        png(*[png_chunk(b"iCCP", b"x\0\0")] * 2),
        png(png_chunk(b"eXIf", quadratic_exif(9_000, 700))),
        png()[:-12],
        png()[:40] + b"?" + png()[41:],
        jpeg(segment(0xC0, b"\x08\0\x40\0\x40\x01\x01\x11\0")),
        jpeg(b"\xff\xd8"),
        jpeg(b"junk"),
        jpeg(*[segment(0xFE)] * MAX_SEGMENTS),
        jpeg()[:100],
        progressive_scans(100),
    ],
)
def test_what_is_no_picture_of_its_kind(data: bytes) -> None:
    with pytest.raises(Malformed):
        scan(data)


def test_a_decoder_that_hangs_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        checks = PictureChecks(deadline=0.2)
        checks._decoder = child_process.ChildProcess(__name__)
        try:
            with pytest.raises(InvalidImageError, match="within"):
                await checks.check(picture(70))
            assert checks._decoder._process is None
            assert (await checks.check(picture(64))).width == 64
        finally:
            await checks.close()

    asyncio.run(check())


def test_of_a_state_no_more_than_a_block_is_inflated() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    bomb = state_bomb(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidStateError):
            decompress_state(bomb, ceiling=1 << 20)
        assert peek_state(bomb)["format"] == "trellis2-state"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(decompress_state(bomb)) > 64 << 20


def _hangs_on_70(data: bytes) -> tuple[bytes, bytes]:
    if scan(data)[1] == 70:
        time.sleep(60)
    return child_process.OK, b""


if __name__ == "__main__":  # the process of the test above
    sys.exit(child_process.serve_frames(_hangs_on_70, child_process.claim_stdout()))
