"""What the gateway checks of a picture before a job exists: kind, size, checksums. The worker decodes it."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from ...protocol.errors import FieldError, InvalidImageError, TooLargeError
from ...protocol.limits import (
    IMAGE_MEDIA_TYPES,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIDE,
    MIN_IMAGE_SIDE,
)
from .encoding import decode_base64


@dataclass(frozen=True)
class Picture:
    """A picture whose header is sound; `format` is PNG, JPEG or WEBP."""

    data: bytes
    format: str
    width: int
    height: int


async def picture_from_base64(text: str) -> Picture:
    """Raises `InvalidImageError` or `TooLargeError`; takes plain base64 and data: URLs."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise _bad("is a data: URL that is not base64")
    data = await decode_base64(text)
    if data is None:
        raise _bad("is not base64 without line breaks")
    return check_picture(data)


def check_picture(data: bytes) -> Picture:
    """The picture's kind and size; raises `InvalidImageError` or `TooLargeError`. Decodes no pixels."""
    if len(data) > MAX_IMAGE_BYTES:
        raise TooLargeError(f"the picture has {len(data)} bytes, the most is {MAX_IMAGE_BYTES}")
    if not data:
        raise _bad("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit on pixels is below
            with Image.open(io.BytesIO(data), formats=tuple(IMAGE_MEDIA_TYPES)) as image:
                kind, (width, height) = str(image.format), image.size
                _check_size(width, height)
                if kind == "PNG":
                    image.verify()  # checksums of every chunk
    except InvalidImageError:
        raise
    except Exception as error:  # a decoder may raise anything over a stranger's bytes
        raise _bad("is not a readable PNG, JPEG or WebP") from error
    return Picture(data, kind, width, height)


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_IMAGE_SIDE:
        raise _bad(f"is {width}x{height}, the least is {MIN_IMAGE_SIDE} on each side")
    if max(width, height) > MAX_IMAGE_SIDE or width * height > MAX_IMAGE_PIXELS:
        raise _bad(f"is {width}x{height}, the most is {MAX_IMAGE_PIXELS} pixels, {MAX_IMAGE_SIDE} on a side")


def _bad(message: str) -> InvalidImageError:
    return InvalidImageError(
        f"the picture {message}; send a PNG, JPEG or WebP", errors=[FieldError("image", message)]
    )
