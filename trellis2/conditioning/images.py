"""Opens pictures as people have them and gives plain RGB or RGBA."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from ..errors import InvalidImageError

ImageSource: TypeAlias = Image.Image | bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]

MAX_PIXELS = 89_000_000  # above this Pillow, too, suspects a decompression bomb
MIN_SIDE = 2
HIGH_DEPTH_MODES = frozenset({"I", "F"})  # and every "I;16…": more than 8 bits a channel


def load_image(source: ImageSource) -> Image.Image:
    """Decode a picture, upright, as mode RGB or RGBA (RGBA only where transparency is stored).

    Takes a PIL image, encoded bytes, a path or a binary file. Of an animation the first frame is used; EXIF
    rotation is applied; palettes, grey, 16-bit, CMYK and other modes become 8-bit RGB(A). Raises
    `InvalidImageError` for what cannot be decoded, is larger than `MAX_PIXELS`, or is smaller than `MIN_SIDE`
    on a side; `FileNotFoundError` for a missing path.
    """
    image = source if isinstance(source, Image.Image) else open_image(source)
    check_size(image)
    try:
        if getattr(image, "is_animated", False):
            image.seek(0)
        image.load()
        upright = ImageOps.exif_transpose(image)
        return to_rgb_or_rgba(upright)
    # Pillow's decoders raise whatever their parsing trips over: struct.error, IndexError, zlib.error, ...
    except Exception as error:
        raise InvalidImageError(f"the image cannot be decoded ({error}); save it as PNG or JPEG") from error


def open_image(source: bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Read a picture's header; pixels are decoded later."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        stream: IO[bytes] = io.BytesIO(bytes(source))
    elif isinstance(source, (str, os.PathLike)):
        stream = io.BytesIO(Path(source).read_bytes())
    else:
        stream = source
    try:
        return Image.open(stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImageError(f"the image is larger than {MAX_PIXELS} pixels; scale it down") from error
    except Exception as error:  # see load_image
        raise InvalidImageError(f"this is no image that can be read ({error})") from error


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


def to_rgb_or_rgba(image: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB, or RGBA where there is transparency data."""
    if image.mode in HIGH_DEPTH_MODES or image.mode.startswith("I;16"):
        image = high_depth_to_grey(image)
    if image.mode in ("RGB", "RGBA") and not (image.mode == "RGB" and image.has_transparency_data):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def high_depth_to_grey(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey as 8-bit grey over the format's full range (floats: 0..1, or their own maximum)."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidImageError("the image holds NaN or infinite pixels")
    if image.mode == "F":
        top = max(float(values.max()), 1.0)
    else:
        top = max(float(values.max()), 65535.0)
    return Image.fromarray(np.rint(values.clip(0) * (255.0 / top)).astype(np.uint8))
