"""Cut-outs corrected by hand, on drawn pictures whose true matte is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.trellis2.conditioning.test_grabcut import SIZE, background, ball, overlap, scene
from trellis2.conditioning.matting.corrections import ATTEMPTS, Corrections, corrected
from trellis2.conditioning.matting.grabcut import GrabCutMatting
from trellis2_modal.protocol.requests import MAX_ATTEMPTS

LEFT, RIGHT = (60, 100, 40), (150, 100, 30)


def cut(picture: Image.Image, **said: object) -> Image.Image:
    remover = GrabCutMatting()
    return corrected(picture, lambda: remover(picture), Corrections(**said))  # type: ignore[arg-type]


def two_colours() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """An orange ball on the left, a blue one on the right, and the mask of each."""
    pixels = background("plain")
    masks = []
    for place, colour in ((LEFT, (0.75, 0.35, 0.15)), (RIGHT, (0.2, 0.3, 0.8))):
        mask, colours = ball(*place, colour)
        pixels[mask] = colours[mask]
        masks.append(mask)
    return Image.fromarray((pixels * 255).astype(np.uint8)), masks[0], masks[1]


def painted(*lines: tuple[tuple[int, int, int, int], int]) -> Image.Image:
    trimap = Image.new("L", (SIZE, SIZE), 128)
    for line, value in lines:
        ImageDraw.Draw(trimap).line(line, fill=value, width=12)
    return trimap


def test_a_box_takes_what_is_in_it() -> None:
    picture, _ = scene("plain", [LEFT, RIGHT])
    _, right = scene("plain", [RIGHT])
    assert overlap(cut(picture, box=(0.57, 0.3, 0.92, 0.7)), right) > 0.95


def test_paint_spreads_over_what_looks_alike() -> None:
    picture, left, right = two_colours()
    assert overlap(cut(picture), left | right) > 0.97
    removed = cut(picture, trimap=painted(((135, 100, 165, 100), 0)))
    assert overlap(removed, left) > 0.95
    kept = cut(picture, box=(0, 0, 0.52, 1), trimap=painted(((145, 100, 155, 100), 255)))
    assert np.asarray(kept)[100, 150, 3] == 255, "outside the box, but painted"
    brushed = cut(picture, trimap=painted(((80, 170, 100, 128), 0)))
    assert overlap(brushed, left | right) > 0.9, "a stroke that only brushes the ball leaves it"


def test_what_is_painted_counts_to_the_pixel() -> None:
    picture, left, _ = two_colours()
    trimap = painted(((90, 20, 110, 20), 255), ((50, 100, 70, 100), 0))
    alpha = np.asarray(cut(picture, trimap=trimap))[..., 3]
    assert alpha[20, 90:110].min() == 255, "kept, though it is background"
    assert alpha[100, 50:70].max() == 0, "removed, in the middle of the ball"
    assert left[100, 60]


@pytest.mark.parametrize("attempt", range(2, ATTEMPTS + 1))
def test_other_attempts_find_the_object_without_the_first_cut(attempt: int) -> None:
    picture, truth = scene("gradient", [(100, 105, 60)])

    def first() -> Image.Image:
        raise AssertionError("only the first attempt begins there")

    found = corrected(picture, first, Corrections(attempt=attempt))
    assert overlap(found, truth) > 0.9


def test_own_transparency_is_painted_over_and_not_cut_anew() -> None:
    picture, left, right = two_colours()
    picture.putalpha(Image.fromarray(np.where(left | right, 200, 0).astype(np.uint8)))
    said = Corrections(box=(0, 0, 0.55, 1), trimap=painted(((50, 100, 70, 100), 0)))
    alpha = np.asarray(corrected(picture.convert("RGB"), lambda: picture, said, own=True))[..., 3]
    assert alpha[right].max() == 0
    assert alpha[100, 60] == 0
    assert set(np.unique(alpha[left & (np.arange(SIZE)[:, None] < 80)])) == {200}


@pytest.mark.parametrize("value", [0, 255])
def test_a_whole_picture_may_be_painted(value: int) -> None:
    picture, _ = scene("plain", [LEFT])
    alpha = np.asarray(cut(picture, trimap=Image.new("L", (SIZE, SIZE), value)))[..., 3]
    assert set(np.unique(alpha)) == {value}


def test_the_protocol_offers_every_attempt() -> None:
    assert MAX_ATTEMPTS == ATTEMPTS


def test_a_busy_background_makes_a_cut_a_guess() -> None:
    patches = np.random.default_rng(1).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    assert not GrabCutMatting().certain(Image.fromarray(patches).resize((SIZE, SIZE)))
    assert GrabCutMatting().certain(scene("gradient", [LEFT])[0])
