"""Opens pictures as people have them and gives plain sRGB, as RGB or RGBA."""

from __future__ import annotations

import os
from typing import IO, TypeAlias

from PIL import Image

from trellis2_pictures import UnreadablePictureError, open_picture, to_srgb

from ..errors import InvalidImageError

ImageSource: TypeAlias = Image.Image | bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]

MAX_PIXELS = 89_000_000  # above this Pillow, too, suspects a decompression bomb
MIN_SIDE = 2


def load_image(source: ImageSource) -> Image.Image:
    """Decode a picture, upright, as sRGB in mode RGB or RGBA (RGBA only where transparency is stored).

    Takes a PIL image, encoded bytes, a path or a binary file; `trellis2_pictures` says how colour profiles,
    depths and modes are read. Raises `InvalidImageError` for what cannot be decoded, is larger than
    `MAX_PIXELS`, or is smaller than `MIN_SIDE` on a side; `FileNotFoundError` for a missing path.
    """
    try:
        image = source if isinstance(source, Image.Image) else open_picture(source)
        check_size(image)
        return to_srgb(image)
    except UnreadablePictureError as error:
        raise InvalidImageError(str(error)) from error


def check_size(image: Image.Image) -> None:
    """Refuse pictures that are too large to decode or too small to show anything."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidImageError(
            f"the image has {width}x{height} = {width * height} pixels, the limit is {MAX_PIXELS}; "
            "scale it down"
        )
    if min(width, height) < MIN_SIDE:
        raise InvalidImageError(
            f"the image is {width}x{height} pixels; at least {MIN_SIDE} on each side are needed"
        )
