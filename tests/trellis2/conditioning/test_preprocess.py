"""Cropping and compositing beyond the golden cases: scale, borders, and pictures without a subject."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trellis2.conditioning import preprocess_image
from trellis2.errors import InvalidArgumentError, InvalidImageError


def with_box(size: tuple[int, int], box: tuple[int, int, int, int], alpha: int = 255) -> Image.Image:
    """White, transparent but for a box (left, top, right, bottom)."""
    image = Image.new("RGBA", size, (255, 255, 255, 0))
    image.paste((255, 255, 255, alpha), box)
    return image


def test_crop_is_the_square_around_the_subject() -> None:
    out = preprocess_image(with_box((100, 80), (20, 30, 61, 51)))
    assert out.mode == "RGB"
    assert out.size == (40, 40)
    rows = np.asarray(out)[:, 20, 0]
    assert rows[:9].max() == 0  # above the subject: black
    assert rows[11:29].min() == 255


def test_crop_may_leave_the_picture() -> None:
    out = preprocess_image(with_box((60, 200), (0, 20, 10, 180)))
    assert out.size == (158, 158)
    assert np.asarray(out)[:, 0].max() == 0


def test_long_sides_come_down_to_1024() -> None:
    out = preprocess_image(with_box((2048, 1000), (0, 0, 2048, 999)))
    assert out.size[0] == pytest.approx(1023, abs=1)


def test_opaque_pictures_go_through_the_remover() -> None:
    picture = Image.new("RGBA", (50, 50), (200, 100, 50, 255))
    seen: list[str] = []

    def remove(image: Image.Image) -> Image.Image:
        seen.append(image.mode)
        return with_box(image.size, (10, 10, 31, 31))

    assert preprocess_image(picture, remove).size == (20, 20)
    assert seen == ["RGB"]
    with pytest.raises(InvalidArgumentError, match="background remover"):
        preprocess_image(picture)
    with pytest.raises(InvalidArgumentError, match="RGBA"):
        preprocess_image(picture, lambda image: image)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (Image.new("RGBA", (40, 40), (9, 9, 9, 0)), "fully transparent"),
        (with_box((40, 40), (5, 5, 6, 6)), "1x1 pixels"),
        (Image.new("RGBA", (1, 1), (9, 9, 9, 0)), "1x1"),
    ],
)
def test_pictures_without_a_subject(image: Image.Image, found: str) -> None:
    with pytest.raises(InvalidImageError, match=found):
        preprocess_image(image)
