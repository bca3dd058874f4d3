"""Matte and crop: the subject on black, filling a square."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ..errors import InvalidArgumentError, InvalidImageError
from .images import check_size, load_image
from .matting.matte import (
    SUBJECT_ALPHA,
    Notice,
    OnNotice,
    Subjects,
    choose_subjects,
    has_matte,
    ignore,
    notice_darkness,
    strengthened,
)

MAX_SIDE = 1024
PIXEL_ALIGNED_MARGIN = 1.1  # side of the crop in sides of the subject's box, for pixel-aligned flows

BackgroundRemover = Callable[[Image.Image], Image.Image]


def preprocess_image(
    image: Image.Image,
    remove_background: BackgroundRemover | None = None,
    margin: float = 1.0,
    subjects: Subjects = "auto",
    notice: OnNotice = ignore,
) -> Image.Image:
    """The subject, cropped to a square around it and multiplied by its matte, as an RGB picture on black.

    A picture without a matte of its own goes through `remove_background` (RGB in, RGBA out). The longer side
    is first brought down to 1024. The crop is `margin` times the subject's longer side; it may leave the
    picture, outside is black. `notice` is told what a person should know. Raises `InvalidImageError` when
    the matte shows no subject, `InvalidArgumentError` when a matte is needed and there is no remover.
    """
    matted = with_matte(image, remove_background, subjects, notice)
    notice_darkness(matted, notice)
    return composite_on_black(matted.crop(subject_square(matted, margin)))


def with_matte(
    image: Image.Image,
    remove_background: BackgroundRemover | None = None,
    subjects: Subjects = "auto",
    notice: OnNotice = ignore,
) -> Image.Image:
    """The whole picture as RGBA with a matte, its own or the remover's; errors as for `preprocess_image`.

    Transparency that is no matte is left for the remover's where there is one. `subjects`: all that stand
    out (auto does, too), or only the largest.
    """
    check_size(image)
    if image.mode not in ("RGB", "RGBA"):
        image = load_image(image)
    transparent = image.mode == "RGBA" and int(np.asarray(image.getchannel("A")).min()) < 255
    own_matte = has_matte(image) or (transparent and remove_background is None)
    if transparent and not has_matte(image):
        done = "it is used as it is" if own_matte else "the background was removed instead"
        notice(Notice("alpha_is_no_matte", f"the picture's transparency cuts no subject out; {done}"))
    image = limit_size(image)
    if not own_matte:
        if remove_background is None:
            raise InvalidArgumentError(
                f"the image (mode {image.mode}) has no transparency and no background remover is loaded; "
                "pass an RGBA image with the background cut out, or preprocess_image=False"
            )
        image = remove_background(without_alpha(image))
        if image.mode != "RGBA":
            raise InvalidArgumentError(f"the background remover must return RGBA, got {image.mode}")
    return choose_subjects(strengthened(image, notice), subjects, notice)


def limit_size(image: Image.Image) -> Image.Image:
    """Scale the longer side down to `MAX_SIDE`; smaller pictures stay as they are."""
    scale = min(1, MAX_SIDE / max(image.size))
    if scale == 1:
        return image
    width, height = image.size
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def subject_box(image: Image.Image) -> tuple[int, int, int, int]:
    """First and last column and row (x0, y0, x1, y1) of the pixels whose alpha is above `SUBJECT_ALPHA`.

    Raises `InvalidImageError` when there are none, or next to none.
    """
    alpha = np.asarray(image.getchannel("A"))
    rows, columns = np.nonzero(alpha > SUBJECT_ALPHA)
    if not rows.size:
        raise InvalidImageError(
            f"no pixel of the {image.width}x{image.height} matte is above alpha {SUBJECT_ALPHA:.0f} of 255 "
            f"(the largest is {int(alpha.max())}): the image is fully transparent or shows no subject"
        )
    x0, x1, y0, y1 = int(columns.min()), int(columns.max()), int(rows.min()), int(rows.max())
    if max(x1 - x0, y1 - y0) < 2:
        raise InvalidImageError(
            f"the subject covers only {x1 - x0 + 1}x{y1 - y0 + 1} pixels of {image.width}x{image.height}; "
            "use a picture in which it fills more of the frame"
        )
    return x0, y0, x1, y1


def subject_square(image: Image.Image, margin: float = 1.0) -> tuple[float, float, float, float]:
    """The square (left, top, right, bottom) around the subject, `margin` times its longer side.

    Edges may be half-integers: Pillow's crop rounds each half to even, as the published preprocessing does.
    """
    x0, y0, x1, y1 = subject_box(image)
    return square_around(x0, y0, x1, y1, int(margin * max(x1 - x0, y1 - y0)))


def square_around(x0: int, y0: int, x1: int, y1: int, side: int) -> tuple[float, float, float, float]:
    """The square (left, top, right, bottom) of about `side` around the middle of a box."""
    centre_x, centre_y, half = (x0 + x1) / 2, (y0 + y1) / 2, side // 2
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


def framed_together(views: Sequence[Image.Image], margin: float) -> list[Image.Image]:
    """Level views (RGBA) of one object cropped to squares of one scale, RGBA still.

    All show the same height, so each is scaled by its subject's; the subject's longest side over all views is
    1/`margin` of the frame.
    """
    boxes = [subject_box(view) for view in views]
    heights = [max(1, y1 - y0) for _, y0, _, y1 in boxes]
    longest = max(max(x1 - x0, h) / h for (x0, _, x1, _), h in zip(boxes, heights, strict=True))
    return [
        view.crop(square_around(*box, int(margin * longest * height)))
        for view, box, height in zip(views, boxes, heights, strict=True)
    ]


def without_alpha(image: Image.Image) -> Image.Image:
    """RGB for a remover: clear corners, under which often lies garbage, take the nearest colour."""
    pixels = np.asarray(image)
    if image.mode == "RGB":
        return image
    from scipy.ndimage import distance_transform_edt

    clear = pixels[..., 3] <= pixels[..., 3].max() // 2
    if not clear.any() or clear.all():
        return image.convert("RGB")
    rows, columns = distance_transform_edt(clear, return_distances=False, return_indices=True)
    return Image.fromarray(np.ascontiguousarray(pixels[rows, columns, :3]))


def composite_on_black(image: Image.Image) -> Image.Image:
    """RGB · alpha in float32, cut (not rounded) to 8 bits."""
    pixels = np.asarray(image).astype(np.float32) / 255
    return Image.fromarray((pixels[:, :, :3] * pixels[:, :, 3:4] * 255).astype(np.uint8))
