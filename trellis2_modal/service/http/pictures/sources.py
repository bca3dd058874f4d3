"""Pictures that a request names in place of sending them: by a URL, or by words for an image generator.

Both are off unless the operator switches them on. What comes back is checked like a picture that was sent.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable

from ....protocol.errors import FieldError, InvalidRequestError, TooLargeError, UnavailableError
from ....protocol.limits import IMAGE_MEDIA_TYPES, MAX_IMAGE_BYTES, MIB
from ....protocol.requests import GenerateRequest
from ...config import SettingsError
from ...outbound.requests import Limits, Outbound, OutboundError
from .checks import picture_bytes

logger = logging.getLogger(__name__)

FETCH = Limits(seconds=20.0, size=MAX_IMAGE_BYTES)
AT_ONCE = 8
"""Pictures that are fetched or drawn at one moment."""

DRAW_TIMEOUT = 300.0
UNTYPED = ("application/octet-stream", "binary/octet-stream", "")
"""What stores say of files of which they know nothing: the picture itself is looked at."""

Draw = Callable[[str, int], bytes]
"""Makes a PNG, JPEG or WebP of a prompt and a seed. Blocks."""

NO_PROMPT = (
    "is not taken: this service makes assets from pictures. Its operator may plug in an image generator with "
    "TRELLIS2_TEXT_TO_IMAGE=module:function"
)
NO_URL = "is not taken: this service's operator has not switched it on (TRELLIS2_IMAGE_URLS=true)"


def refused(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {message}", errors=[FieldError(field, message)])


class PictureSources:
    """Gets what a request names. `draw` is the operator's image generator, if there is one."""

    def __init__(self, urls: bool, draw: Draw | None = None, outbound: Outbound | None = None) -> None:
        self._urls, self._draw = urls, draw
        self._outbound = outbound or Outbound()
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def takes_urls(self) -> bool:
        """Whether a request may name an address."""
        return self._urls

    @property
    def takes_prompts(self) -> bool:
        """Whether a request may give words."""
        return self._draw is not None

    async def pictures(self, request: GenerateRequest) -> list[bytes]:
        """The encoded pictures of a request, unchecked. Raises `InvalidRequestError`, `InvalidImageError`,
        `TooLargeError` or `UnavailableError`."""
        if request.image_url is not None:
            return [await self.fetch(request.image_url)]
        if request.prompt is not None:
            return [await self.draw(request.prompt, request.seed)]
        given = [request.image] if request.image is not None else request.images or []
        return [await picture_bytes(text) for text in given]

    async def fetch(self, url: str) -> bytes:
        """The picture at a URL."""
        if not self._urls:
            raise refused("image_url", NO_URL)
        try:
            async with self._turns:
                found = await asyncio.to_thread(self._outbound.get, url, "image_url", FETCH)
        except OutboundError as error:
            raise refused("image_url", f"gave no picture: {error}") from error
        if found.status != 200:
            raise refused("image_url", f"gave no picture: it answers {found.status}")
        media = found.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in (*IMAGE_MEDIA_TYPES.values(), *UNTYPED):
            raise refused("image_url", f"is of the type {media[:60]}; it must be a PNG, JPEG or WebP")
        if not found.whole:
            raise TooLargeError(f"the picture has more than {MAX_IMAGE_BYTES // MIB} MiB, the most")
        return found.body

    async def draw(self, prompt: str, seed: int) -> bytes:
        """The picture that the operator's generator makes."""
        if self._draw is None:
            raise refused("prompt", NO_PROMPT)
        try:
            async with self._turns, asyncio.timeout(DRAW_TIMEOUT):
                made: object = await asyncio.to_thread(self._draw, prompt, seed)
        except ValueError as error:
            raise refused("prompt", f"is refused by the image generator: {error}") from error
        except Exception as error:  # whatever the operator's code may raise
            logger.exception("the image generator failed")
            raise UnavailableError("the image generator failed; try again later", retry_after=30) from error
        if not isinstance(made, bytes):
            logger.error("the image generator returned %s, not bytes", type(made).__name__)
            raise UnavailableError("the image generator made no picture", retry_after=60)
        return made


def image_generator(name: str) -> Draw | None:
    """The function `module:function` of TRELLIS2_TEXT_TO_IMAGE; None for "". Raises `SettingsError`."""
    if not name:
        return None
    module, _, function = name.partition(":")
    try:
        found: Draw = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"TRELLIS2_TEXT_TO_IMAGE={name!r} names no function: {error}") from error
    if not callable(found):
        raise SettingsError(f"TRELLIS2_TEXT_TO_IMAGE={name!r} names no function: {function} cannot be called")
    return found
