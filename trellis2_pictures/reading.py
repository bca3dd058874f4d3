"""Opens a picture file and gives upright 8-bit sRGB, with transparency where it is stored."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .cicp import coding_points
from .colour import convert_to_srgb

PictureSource: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]

HIGH_DEPTH_MODES = frozenset({"I", "F"})  # and every "I;16…": more than 8 bits a channel
_COLOUR_INFO = ("icc_profile", "gamma", "srgb", "chromaticity", "cicp", "transparency")
_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heif"
)
_WHAT_TO_INSTALL = {
    "heif": "it is HEIC, which needs the package pi-heif: pip install pi-heif, or save it as PNG or JPEG",
    "avif": "it is AVIF, which needs Pillow 11.3 or later: pip install -U pillow, or save it as PNG or JPEG",
}


class UnreadablePictureError(ValueError):
    """The bytes are no picture that can be read here; the text says what to do."""


def open_picture(source: PictureSource) -> Image.Image:
    """Read a picture's header; pixels are decoded later.

    Raises `UnreadablePictureError`, and FileNotFoundError for a missing path.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        data = Path(source).read_bytes()
    else:
        data = source.read()
    kind = _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    if kind == "heif":
        _register_heif()
    try:
        image = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadablePictureError(
            f"the picture is too large to decode ({error}); scale it down"
        ) from error
    except UnidentifiedImageError as error:  # names an object of Python's
        said = _WHAT_TO_INSTALL.get(kind or "", "its format is not known")
        raise UnreadablePictureError(f"this is no picture that can be read here: {said}") from error
    # Pillow's parsers raise whatever they trip over: struct.error, IndexError, SyntaxError, ...
    except Exception as error:
        said = _WHAT_TO_INSTALL.get(kind or "", str(error))
        raise UnreadablePictureError(f"this is no picture that can be read here: {said}") from error
    # In AVIF and HEIC a profile wins over code points, in PNG they win over a profile.
    if (kind is None or "icc_profile" not in image.info) and (points := coding_points(data)) is not None:
        image.info["cicp"] = points
    return image


def _register_heif() -> None:
    try:
        import pi_heif
    except ImportError:
        return
    pi_heif.register_heif_opener()


def read_picture(source: PictureSource) -> Image.Image:
    """`to_srgb` of `open_picture`."""
    return to_srgb(open_picture(source))


def to_srgb(image: Image.Image) -> Image.Image:
    """Any picture as upright 8-bit sRGB in mode RGB, or RGBA where transparency is stored.

    Of an animation the first frame is used, EXIF rotation is applied, and the colour space that the file
    names is left for sRGB. Raises `UnreadablePictureError` for pixels that cannot be decoded.
    """
    try:
        if getattr(image, "is_animated", False):
            image.seek(0)
        image.load()
        image = ImageOps.exif_transpose(image)
        converted = convert_to_srgb(_eight_bits(image))
    except UnreadablePictureError:
        raise
    except Exception as error:  # as in open_picture
        raise UnreadablePictureError(f"the picture cannot be decoded: {error}") from error
    if any(name in converted.info for name in _COLOUR_INFO):
        if converted is image:
            converted = converted.copy()
        for name in _COLOUR_INFO:  # what is left would be applied again
            converted.info.pop(name, None)
    return converted


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey as 8-bit grey over the format's full range (floats: 0..1, or their own maximum)."""
    if image.mode not in HIGH_DEPTH_MODES and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePictureError("the picture holds NaN or infinite pixels")
    top = max(float(values.max(initial=0)), 1.0 if image.mode == "F" else 65535.0)
    grey = Image.fromarray(np.rint(values.clip(0) * (255.0 / top)).astype(np.uint8))
    grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return grey
