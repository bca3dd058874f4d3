"""The example pictures: what is bundled, and that they can be drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from trellis2_training import world
from trellis2_training.evaluation import examples, styles

EXAMPLES = Path(__file__).parents[2] / "assets" / "example_image"


def test_all_are_bundled_and_small() -> None:
    pictures, drawn = sorted(EXAMPLES.glob("*.png")), sorted((EXAMPLES / "other_styles").iterdir())
    assert len(pictures) == 24
    assert [path.stem for path in drawn] == sorted(styles._STYLES)
    chosen = {world.family_of(world.HELD_OUT_ALL + offset) for offset in examples._CHOSEN}
    assert chosen | {f"icon_{name}" for name in examples._ICONS} < {path.stem for path in pictures}
    assert sum(path.stat().st_size for path in (*pictures, *drawn)) <= 1 << 20
    for path in drawn:
        assert path.stat().st_size <= 60_000, path.name
        with Image.open(path) as image:
            assert min(image.size) >= 256, path.name


def test_pixel_art_has_large_pixels_few_colours_and_an_edge() -> None:
    pixels = np.array(styles.pixel_art())
    small = pixels[::10, ::10]
    assert np.array_equal(pixels, small.repeat(10, 0).repeat(10, 1))
    colours = np.unique(small[small[..., 3] > 0], axis=0)
    assert 6 < len(colours) <= 17
    assert (26, 20, 36, 255) in map(tuple, colours.tolist())


def test_the_flat_icon_is_drawn_as_bundled() -> None:
    with Image.open(EXAMPLES / "other_styles" / "flat_icon.png") as bundled:
        gap = np.abs(np.asarray(bundled.convert("RGBA"), np.int16) - np.asarray(styles.flat_icon(), np.int16))
    assert gap.mean() < 1
