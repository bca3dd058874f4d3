"""Matte and crop: the subject on black, filling a square."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ..errors import InvalidArgumentError, InvalidImageError
from .images import check_size, to_rgb_or_rgba

MAX_SIDE = 1024
SUBJECT_ALPHA = 0.8 * 255  # pixels above this belong to the subject when its box is measured

BackgroundRemover = Callable[[Image.Image], Image.Image]


def has_alpha(image: Image.Image) -> bool:
    """Whether the picture brings its own matte: mode RGBA with at least one pixel that is not opaque."""
    return image.mode == "RGBA" and int(np.asarray(image.getchannel("A")).min()) < 255


def preprocess_image(image: Image.Image, remove_background: BackgroundRemover | None = None) -> Image.Image:
    """The subject, cropped to a square around it and multiplied by its matte, as an RGB picture on black.

    A picture without a matte of its own goes through `remove_background` (RGB in, RGBA out). The longer side
    is first brought down to 1024. The crop may leave the picture; outside is black. Raises
    `InvalidImageError` when the matte shows no subject, `InvalidArgumentError` when a matte is needed and
    there is no remover.
    """
    check_size(image)
    if image.mode not in ("RGB", "RGBA"):
        image = to_rgb_or_rgba(image)
    own_matte = has_alpha(image)
    image = limit_size(image)
    if not own_matte:
        if remove_background is None:
            raise InvalidArgumentError(
                f"the image (mode {image.mode}) has no transparency and no background remover is loaded; "
                "pass an RGBA image with the background cut out, or preprocess_image=False"
            )
        image = remove_background(image.convert("RGB"))
        if image.mode != "RGBA":
            raise InvalidArgumentError(f"the background remover must return RGBA, got {image.mode}")
    return composite_on_black(image.crop(subject_square(image)))


def limit_size(image: Image.Image) -> Image.Image:
    """Scale the longer side down to `MAX_SIDE`; smaller pictures stay as they are."""
    scale = min(1, MAX_SIDE / max(image.size))
    if scale == 1:
        return image
    width, height = image.size
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def subject_square(image: Image.Image) -> tuple[float, float, float, float]:
    """The square (left, top, right, bottom) around the pixels whose alpha is above `SUBJECT_ALPHA`.

    Edges may be half-integers: Pillow's crop rounds each half to even, as the published preprocessing does.
    """
    alpha = np.asarray(image.getchannel("A"))
    rows, columns = np.nonzero(alpha > SUBJECT_ALPHA)
    if not rows.size:
        raise InvalidImageError(
            f"no pixel of the {image.width}x{image.height} matte is above alpha {SUBJECT_ALPHA:.0f} of 255 "
            f"(the largest is {int(alpha.max())}): the image is fully transparent or shows no subject"
        )
    x0, x1, y0, y1 = int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())
    half = max(x1 - x0, y1 - y0) // 2
    if half < 1:
        raise InvalidImageError(
            f"the subject covers only {x1 - x0 + 1}x{y1 - y0 + 1} pixels of {image.width}x{image.height}; "
            "use a picture in which it fills more of the frame"
        )
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


def composite_on_black(image: Image.Image) -> Image.Image:
    """RGB · alpha in float32, cut (not rounded) to 8 bits."""
    pixels = np.asarray(image).astype(np.float32) / 255
    return Image.fromarray((pixels[:, :, :3] * pixels[:, :, 3:4] * 255).astype(np.uint8))
