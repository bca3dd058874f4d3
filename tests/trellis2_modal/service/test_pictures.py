from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trellis2_modal.server import picture
from trellis2_modal.protocol.errors import InvalidImageError
from trellis2_modal.service.http import encoding
from trellis2_modal.service.http.encoding import decode_base64, encode_base64
from trellis2_modal.service.http.pictures.checks import check_structure, picture_bytes


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_base64_of_any_bytes(data: bytes) -> None:
    assert asyncio.run(decode_base64(base64.b64encode(data).decode())) == data


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_base64_in_pieces(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(encoding, "PIECE", 6)
        small.setattr(encoding, "PIECE_TEXT", 8)
        text = asyncio.run(encode_base64(data))
        assert text == base64.b64encode(data).decode()
        assert asyncio.run(decode_base64(text)) == data
        assert asyncio.run(decode_base64("QQ==" + text)) == (b"A" if not data else None)
        assert asyncio.run(decode_base64("QUJDQQ==" + text)) == (b"ABCA" if not data else None)


@pytest.mark.parametrize("text", ["a", "====", "QUJ D", "QUJD\n", "QUJD\0", '"', "\\u0041BCD", "é", "\ud800"])
def test_what_is_not_base64(text: str) -> None:
    assert asyncio.run(decode_base64(text)) is None


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats(format: str) -> None:
    found = check_structure(picture(80, format=format))
    assert (found.format, found.width, found.height) == (format, 80, 80)


def test_a_data_url() -> None:
    text = base64.b64encode(picture()).decode()
    assert asyncio.run(picture_bytes("data:image/png;base64," + text)) == picture()
    with pytest.raises(InvalidImageError):
        asyncio.run(picture_bytes("data:image/png;base64" + text))
