"""Training pictures as people bring them: other looks, wrong mattes, JPEG, all sorts of light."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from trellis2_training import world
from trellis2_training.data import looks
from trellis2_training.data import render as rd
from trellis2_training.data.batches import as_photographed
from trellis2_training.world import table as tb
from trellis2_training.world.table import Pattern

COUNT, SIZE = 12, 48


def _seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture(scope="module")
def picture() -> rd.Picture:
    tables = world.table_bank(world.ALL_FAMILIES_SEED, COUNT)
    view = rd.random_views(COUNT, _seed())
    lights = rd.varied_lights(view, _seed())
    return rd.render(tables, rd.crop_view(tables, view, 32), lights, SIZE)


def test_photographed_pictures_are_in_range_black_far_outside_and_reproducible(picture: rd.Picture) -> None:
    torch.manual_seed(0)
    pixels = as_photographed(picture, _seed(1))
    torch.manual_seed(0)
    assert torch.equal(pixels, as_photographed(picture, _seed(1)))
    assert pixels.shape == picture.rgb.shape
    assert 0 <= float(pixels.min()) <= float(pixels.max()) <= 1
    far = torch.nn.functional.max_pool2d(picture.mask, 11, 1, 5) == 0
    assert float((pixels * far).max()) == 0
    kept = [p for p in range(COUNT) if float((pixels[p] - picture.rgb[p]).abs().mean()) < 0.05]
    assert len(kept) >= COUNT // 3, "most pictures stay near what was rendered"


def test_other_looks_leave_the_silhouette(picture: rd.Picture) -> None:
    rows = torch.arange(COUNT)
    drawn = looks.other_looks(picture, rows, _seed(2))
    assert float((drawn * (picture.mask == 0)).abs().max()) == 0
    assert float(drawn.max()) <= 1
    flat = [
        float((d - a * m).abs()[:, m[0] > 0.99].median())
        for d, a, m in zip(drawn, picture.attributes[:, :3], picture.mask, strict=True)
    ]
    assert min(flat) < 0.01 < max(flat), "some are their base colours, some are shaded"


def test_mattes_err_at_the_edge(picture: rd.Picture) -> None:
    made = looks.imperfect_mattes(picture.rgb, picture.mask, _seed(3))
    far = torch.nn.functional.max_pool2d(picture.mask, 11, 1, 5) == 0
    assert float((made * far).abs().max()) == 0
    assert float((made - picture.rgb).abs().max()) > 0.1


@pytest.mark.parametrize("change", [looks.jpeg, looks.softened])
def test_small_and_jpeg_pictures_lose_detail_and_keep_the_rest(
    picture: rd.Picture, change: Callable[[Tensor, torch.Generator], Tensor]
) -> None:
    def detail(pixels: Tensor) -> float:
        return float(pixels.diff(dim=-1).abs().mean())

    made = change(picture.rgb, _seed(4))
    assert made.shape == picture.rgb.shape
    assert 0.0005 < float((made - picture.rgb).abs().mean()) < 0.06
    noise = torch.rand(picture.rgb.shape, generator=_seed(5))
    assert detail(change(noise, _seed(4))) < 0.9 * detail(noise)
    grey = torch.full_like(picture.rgb, 0.5)
    assert float((change(grey, _seed(4)) - grey).abs().max()) < 0.1


def test_half_of_the_lights_are_the_usual_ones() -> None:
    view = rd.random_views(400, _seed())
    usual, varied = rd.random_lights(view, _seed(6)), rd.varied_lights(view, _seed(6))
    same = torch.isclose(varied.sun_colour, usual.sun_colour).all(1) & torch.isclose(
        varied.sky, usual.sky
    ).all(1)
    assert varied.hardness is not None
    assert 0.4 < float(same.float().mean()) < 0.6
    assert bool((varied.hardness[same] == 12).all())
    assert {5.0, 20.0, 30.0, 60.0} < set(varied.hardness.tolist())
    assert torch.equal(varied.sun, usual.sun)


@pytest.mark.parametrize("pattern", [Pattern.BRICKS, Pattern.GRAIN, Pattern.LETTERS])
def test_new_patterns_show_both_colours(pattern: Pattern) -> None:
    box = torch.zeros(1, 1, tb.ROW)
    box[0, 0, tb.KIND], box[0, 0, tb.PARAMS : tb.PARAMS + 3] = tb.Kind.BOX, 0.4
    box[0, 0, tb.ROTATION : tb.ROTATION + 9] = torch.eye(3).reshape(-1)
    box[0, 0, tb.PATTERN], box[0, 0, tb.FREQUENCY], box[0, 0, tb.PHASE] = pattern, 2.0, 0.3
    box[0, 0, tb.SECOND : tb.SECOND + 3] = 1.0
    points = (torch.rand((1, 4000, 3), generator=_seed()) - 0.5) * 0.8
    points[..., 1] = points[..., 1].sign() * 0.4
    second = world.attributes(box, points, torch.zeros(1, 4000, dtype=torch.int64))[0, :, 0] > 0.5
    assert 0.05 < float(second.float().mean()) < 0.8
    if pattern is Pattern.LETTERS:
        assert bool((points[0, second, 1] < 0).all()), "on the front alone"


def test_a_quarter_is_patterned_and_the_first_patterns_stay() -> None:
    tables = world.table_bank(world.ALL_FAMILIES_SEED, 100)
    made = world.patterned(tables, _seed(7))
    share = float((made != tables).flatten(1).any(1).float().mean())
    assert 0.15 < share < 0.35
    first = world.patterned(tables, _seed(7), 1.0, world.FIRST_PATTERNS)
    new = first[..., tb.PATTERN][(first != tables).any(-1)]
    assert float(new.max()) <= Pattern.FACE
    held_out = world.patterned(world.held_out_tables(3), _seed(1), 1.0, world.FIRST_PATTERNS)
    sums = held_out[..., tb.PATTERN : tb.TILT + 1].sum((1, 2))
    torch.testing.assert_close(sums, torch.tensor([39.9282, 32.5900, 41.2945]), atol=1e-3, rtol=0)
