"""What the gateway checks of a picture before a job exists: kind, size, structure. The worker decodes it.

Three steps, each safe for what the next one fears: base64 in pieces, our own scan of the bytes in a thread, a
decoder in a process that is killed at a deadline. None of them holds up the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from ....protocol.errors import FieldError, InvalidImageError, TooLargeError, UnavailableError
from ....protocol.limits import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE, MIN_IMAGE_SIDE
from ..encoding import decode_base64
from . import structure
from .child_process import ChildGone, ChildProcess

logger = logging.getLogger(__name__)

DEADLINE = 10.0
"""Seconds for opening one picture; a few milliseconds are usual."""

SCANNED_AT_ONCE = 256 << 10
"""Bytes that are scanned in well under a millisecond: less than a turn through a thread."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header is sound; `format` is PNG, JPEG or WEBP."""

    data: bytes
    format: str
    width: int
    height: int


def check_structure(data: bytes) -> Picture:
    """The picture's kind and size; raises `InvalidImageError` or `TooLargeError`. No decoder is involved."""
    if len(data) > MAX_IMAGE_BYTES:
        raise TooLargeError(f"the picture has {len(data)} bytes, the most is {MAX_IMAGE_BYTES}")
    if not data:
        raise bad_picture("is empty")
    try:
        kind, width, height = structure.scan(data)
    except structure.Malformed as error:
        raise bad_picture(str(error)) from error
    if min(width, height) < MIN_IMAGE_SIDE:
        raise bad_picture(f"is {width}x{height}, the least is {MIN_IMAGE_SIDE} on each side")
    if max(width, height) > MAX_IMAGE_SIDE or width * height > MAX_IMAGE_PIXELS:
        raise bad_picture(
            f"is {width}x{height}, the most is {MAX_IMAGE_PIXELS} pixels, {MAX_IMAGE_SIDE} on a side"
        )
    return Picture(data, kind, width, height)


class PictureChecks:
    """All checks of a picture; one for the app, closed with it."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        self._decoder = ChildProcess("trellis2_modal.service.http.pictures.decoder")

    async def check(self, data: bytes) -> Picture:
        """Raises `InvalidImageError`, `TooLargeError` or `UnavailableError`."""
        if len(data) <= SCANNED_AT_ONCE:
            picture = check_structure(data)
        else:
            picture = await asyncio.to_thread(check_structure, data)
        try:
            sound, reply = await self._decoder.ask(data, self._deadline)
        except ChildGone as error:
            if error.late:
                logger.warning("a picture of %d bytes was not opened in %.0f s", len(data), self._deadline)
                raise bad_picture(f"cannot be opened within {self._deadline:.0f} s") from error
            raise UnavailableError("the picture could not be checked; try again", retry_after=5) from error
        if not sound:
            logger.info("a picture was refused: %s", reply.decode("utf-8", "replace"))
            raise bad_picture("is not a readable PNG, JPEG or WebP")
        return picture

    async def close(self) -> None:
        await self._decoder.end()


async def picture_bytes(text: str) -> bytes:
    """The bytes in plain base64 or a data: URL; raises `InvalidImageError`."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise bad_picture("is a data: URL that is not base64")
    data = await decode_base64(text)
    if data is None:
        raise bad_picture("is not base64 without line breaks")
    return data


def bad_picture(message: str) -> InvalidImageError:
    return InvalidImageError(
        f"the picture {message}; send a PNG, JPEG or WebP", errors=[FieldError("image", message)]
    )
