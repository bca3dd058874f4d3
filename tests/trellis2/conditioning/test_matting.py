"""Transparency that is no matte, faint and dark subjects, several subjects: what is kept and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from trellis2.conditioning import preprocess_image
from trellis2.conditioning.matting.grabcut import GrabCutMatting
from trellis2.conditioning.matting.matte import Notice, has_matte

SIDE = 256
RED, BLUE = (200, 60, 40), (40, 90, 200)


def photo(*boxes: tuple[int, int, int, int]) -> Image.Image:
    """Discs of two colours on light grey, RGB."""
    image = Image.new("RGB", (SIDE, SIDE), (235, 235, 235))
    for box, colour in zip(boxes, (RED, BLUE), strict=False):
        ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image


def with_alpha(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


ONE = photo((70, 70, 186, 186))
OPAQUE = np.full((SIDE, SIDE), 255)


def one_pixel() -> np.ndarray:
    alpha = OPAQUE.copy()
    alpha[3, 3] = 254
    return alpha


def rounded() -> np.ndarray:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, SIDE - 1, SIDE - 1), 40, fill=255)
    return np.asarray(mask)


@pytest.mark.parametrize("alpha", [one_pixel(), rounded(), np.full((SIDE, SIDE), 250)])
def test_alpha_that_cuts_nothing_out_is_said_and_the_background_removed(alpha: np.ndarray) -> None:
    picture, said = with_alpha(ONE, alpha), list[Notice]()
    assert not has_matte(picture)
    out = preprocess_image(picture, GrabCutMatting(), notice=said.append)
    assert [notice.code for notice in said] == ["alpha_is_no_matte"]
    assert "removed" in said[0].message
    assert abs(out.width - 116) <= 4  # the disc, not the frame
    assert np.asarray(out)[2, 2].max() == 0


def test_without_a_remover_it_is_used_as_it_is() -> None:
    said: list[Notice] = []
    assert preprocess_image(with_alpha(ONE, rounded()), notice=said.append).width == pytest.approx(
        SIDE, abs=2
    )
    assert "as it is" in said[0].message


def test_a_cut_out_that_fills_its_frame_is_a_matte() -> None:
    disc = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(disc).ellipse((0, 0, SIDE - 1, SIDE - 1), fill=255)
    assert has_matte(with_alpha(ONE, np.asarray(disc)))
    tall = OPAQUE.copy()
    tall[:, :20] = tall[:, -20:] = 0
    assert has_matte(with_alpha(ONE, tall))


def test_faint_glass_is_found_and_strengthened() -> None:
    alpha = np.where(np.asarray(ONE)[..., 2] < 200, 120, 0)
    said: list[Notice] = []
    out = np.asarray(preprocess_image(with_alpha(ONE, alpha), notice=said.append))
    assert [notice.code for notice in said] == ["faint_subject"]
    assert out[out.shape[0] // 2, out.shape[1] // 2].tolist() == list(RED)


def test_thin_lines_of_a_large_picture_are_found() -> None:
    image = Image.new("RGBA", (3000, 3000), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((300, 300, 2700, 2700), fill=(*RED, 255), width=2)
    assert preprocess_image(image).width == pytest.approx(819, abs=4)


def test_black_on_clear_is_said() -> None:
    alpha = np.where(np.asarray(ONE)[..., 2] < 200, 255, 0)
    said: list[Notice] = []
    preprocess_image(with_alpha(Image.new("RGB", ONE.size), alpha), notice=said.append)
    assert [notice.code for notice in said] == ["dark_subject"]
    said.clear()
    preprocess_image(with_alpha(ONE, alpha), notice=said.append)
    assert said == []


@pytest.mark.parametrize("cut_out", [False, True])
def test_of_two_objects_the_person_may_choose(cut_out: bool) -> None:
    picture = photo((20, 90, 110, 180), (150, 100, 220, 170))
    if cut_out:
        picture = with_alpha(picture, np.where(np.asarray(picture).min(axis=2) < 200, 255, 0))
    widths = {}
    for subjects in ("largest", "all"):
        said: list[Notice] = []
        out = preprocess_image(picture, GrabCutMatting(), subjects=subjects, notice=said.append)
        assert [notice.code for notice in said] == ["several_subjects"]
        assert "2 objects" in said[0].message
        widths[subjects] = out.width
        blue = (np.asarray(out)[..., 2].astype(int) - np.asarray(out)[..., 0]) > 80
        assert blue.any() == (subjects == "all")
    assert widths["largest"] == pytest.approx(90, abs=4)
    assert widths["all"] == pytest.approx(200, abs=4)


def test_small_parts_are_no_second_object() -> None:
    picture = photo((60, 60, 180, 180), (200, 200, 212, 212))
    picture = with_alpha(picture, np.where(np.asarray(picture).min(axis=2) < 200, 255, 0))
    said: list[Notice] = []
    out = preprocess_image(picture, subjects="largest", notice=said.append)
    assert said == []
    assert out.width > 145  # kept
