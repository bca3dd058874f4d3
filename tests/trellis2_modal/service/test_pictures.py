from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trellis2_modal.server import picture
from trellis2_modal.protocol.errors import InvalidImageError
from trellis2_modal.service.pictures import check_picture, decode_base64, picture_from_base64


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_base64_of_any_bytes(data: bytes) -> None:
    assert decode_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("text", ["a", "====", "QUJ D", "QUJD\n", "QUJD\0", '"', "\\u0041BCD", "é", "\ud800"])
def test_what_is_not_base64(text: str) -> None:
    assert decode_base64(text) is None


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats(format: str) -> None:
    found = check_picture(picture(80, format=format))
    assert (found.format, found.width, found.height) == (format, 80, 80)


def test_a_data_url() -> None:
    text = base64.b64encode(picture()).decode()
    assert picture_from_base64("data:image/png;base64," + text).data == picture()
    with pytest.raises(InvalidImageError):
        picture_from_base64("data:image/png;base64" + text)
