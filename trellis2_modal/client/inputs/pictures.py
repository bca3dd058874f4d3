"""A picture before it is sent: read, and refused here when the service would refuse it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

from ...protocol.errors import FieldError, InvalidImageError, TooLargeError
from ...protocol.limits import IMAGE_MEDIA_TYPES, MAX_IMAGE_BYTES, MIB, MIN_IMAGE_SIDE

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Any"
"""A path, the bytes of a file, or a `PIL.Image.Image`; a list of them where several views are taken."""

EXAMPLES = Path(__file__).parents[3] / "assets" / "example_image"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
Crop: TypeAlias = "tuple[float, float, float, float]"
WHOLE: Crop = (0, 0, 100, 100)

SIGNATURES = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff", "WEBP": b"RIFF"}


def example_pictures() -> list[Path]:
    """The example pictures of the repository, if it is there."""
    if not EXAMPLES.is_dir():
        return []
    return sorted(path for path in EXAMPLES.iterdir() if path.suffix.lower() in SUFFIXES)


def read_picture(picture: Picture) -> bytes:
    """The encoded bytes of a picture; other formats than PNG, JPEG and WebP become PNG in sRGB.

    Raises `InvalidImageError` or `TooLargeError`.
    """
    if isinstance(picture, (bytes, bytearray, memoryview)):
        data, name = bytes(picture), "the picture"
    elif hasattr(picture, "save") and hasattr(picture, "size"):
        data, name = _encode(picture), "the picture"
    else:
        data, name = _read(Path(picture)), Path(picture).name
    if not data:
        raise _bad(f"{name} is empty")
    if picture_format(data) is None:
        data = _convert(data, name)
    if len(data) > MAX_IMAGE_BYTES:
        raise TooLargeError(
            f"{name} has {len(data) / MIB:.1f} MiB, the most is {MAX_IMAGE_BYTES // MIB}; save it smaller"
        )
    return data


def crop_picture(picture: Picture, box: Crop) -> bytes:
    """The part of a picture inside `box`: left, top, right and bottom in percent. The whole one stays as it
    is. Raises `InvalidImageError` or `TooLargeError`.
    """
    data = read_picture(picture)
    left, top, right, bottom = box
    if (left, top, right, bottom) == WHOLE:
        return data
    if not (0 <= left < right <= 100 and 0 <= top < bottom <= 100):
        raise _bad(f"left, top, right and bottom of a crop are percent in order, got {list(box)}")
    from trellis2_pictures import UnreadablePictureError
    from trellis2_pictures import read_picture as pixels

    try:
        image = pixels(data)
    except UnreadablePictureError as error:
        raise _bad(str(error)) from error
    x, y = image.width / 100, image.height / 100
    part = (round(left * x), round(top * y), round(right * x), round(bottom * y))
    if min(part[2] - part[0], part[3] - part[1]) < MIN_IMAGE_SIDE:
        raise _bad(f"the crop leaves less than {MIN_IMAGE_SIDE} pixels of {image.width}x{image.height}")
    return read_picture(image.crop(part))


def picture_format(data: bytes) -> str | None:
    """PNG, JPEG or WEBP by the first bytes, None for anything else."""
    for name, signature in SIGNATURES.items():
        if data.startswith(signature) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    return None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > 8 * MAX_IMAGE_BYTES:
            raise TooLargeError(f"{path.name} has {path.stat().st_size / MIB:.0f} MiB; is it a picture?")
        return path.read_bytes()
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror or error}") from error


def _convert(data: bytes, name: str) -> bytes:
    from trellis2_pictures import UnreadablePictureError, open_picture

    try:
        return _encode(open_picture(data))
    except UnreadablePictureError as error:
        known = ", ".join(IMAGE_MEDIA_TYPES)
        raise _bad(f"{name} cannot be used ({error}); send {known}") from error


def _encode(image: Any) -> bytes:
    from trellis2_pictures import UnreadablePictureError, to_srgb

    buffer = io.BytesIO()
    try:
        to_srgb(image).save(buffer, "PNG")
    except UnreadablePictureError as error:
        raise _bad(str(error)) from error
    return buffer.getvalue()


def _bad(message: str) -> InvalidImageError:
    return InvalidImageError(message, errors=[FieldError("image", message)])
