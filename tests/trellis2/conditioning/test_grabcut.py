"""GrabCut matting on drawn pictures whose true matte is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trellis2.conditioning.matting.grabcut import GrabCutMatting

SIZE = 200


def ball(
    cx: float, cy: float, radius: float, colour: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mask `[H, W]` and colours `[H, W, 3]` of a shaded ball with a highlight."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    nx, ny = (x - cx) / radius, (y - cy) / radius
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0, 1))
    light = np.clip(0.3 - 0.35 * nx - 0.45 * ny + 0.5 * nz, 0, 1)
    shine = np.clip(-0.45 * nx - 0.55 * ny + 0.7 * nz, 0, 1) ** 40
    return nx * nx + ny * ny < 1, np.array(colour) * light[..., None] + 0.6 * shine[..., None]


def background(kind: str) -> np.ndarray:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    if kind == "plain":
        return np.full((SIZE, SIZE, 3), 0.92)
    if kind == "dark":
        return np.full((SIZE, SIZE, 3), 0.07)
    if kind == "gradient":
        return np.stack([0.35 + 0.4 * y, 0.45 + 0.35 * y, 0.6 + 0.3 * y], axis=-1)
    distance = np.hypot(x - 0.5, y - 0.4)[..., None]
    return (1 - 0.9 * distance).clip(0, 1) * np.array([0.8, 0.8, 0.85])


def scene(kind: str, balls: list[tuple[float, float, float]]) -> tuple[Image.Image, np.ndarray]:
    picture, truth = background(kind), np.zeros((SIZE, SIZE), dtype=bool)
    colour = (0.35, 0.45, 0.95) if kind == "dark" else (0.75, 0.35, 0.15)
    for place in balls:
        mask, colours = ball(*place, colour)
        picture[mask], truth = colours[mask], truth | mask
    noise = np.random.default_rng(0).normal(0, 0.01, picture.shape)
    return Image.fromarray(((picture + noise).clip(0, 1) * 255).astype(np.uint8)), truth


def overlap(matte: Image.Image, truth: np.ndarray) -> float:
    found = np.asarray(matte.getchannel("A")) > 127
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("kind", ["plain", "gradient", "vignette"])
def test_subject_on_simple_backgrounds(kind: str) -> None:
    picture, truth = scene(kind, [(100, 115, 55), (70, 65, 28)])
    assert overlap(GrabCutMatting()(picture), truth) > 0.97


def test_subject_cut_by_the_lower_border() -> None:
    picture, truth = scene("gradient", [(100, 170, 70), (100, 85, 35)])
    assert overlap(GrabCutMatting()(picture), truth) > 0.97


def test_subject_with_a_dark_side_on_dark() -> None:
    picture, truth = scene("dark", [(100, 115, 55), (70, 65, 28)])
    assert overlap(GrabCutMatting()(picture), truth) > 0.75


def test_only_the_main_component_is_kept() -> None:
    picture, _ = scene("plain", [(100, 120, 50), (180, 20, 12)])
    _, main = scene("plain", [(100, 120, 50)])
    assert overlap(GrabCutMatting()(picture), main) > 0.96


def test_edges_are_soft_and_the_rest_is_not() -> None:
    picture, _ = scene("plain", [(100, 100, 60)])
    alpha = np.asarray(GrabCutMatting()(picture.resize((600, 600))).getchannel("A"))
    soft = (alpha > 5) & (alpha < 250)
    assert 0 < soft.mean() < 0.05
    assert alpha[300, 300] == 255
    assert alpha[5, 5] == 0


def test_nothing_stands_out_gives_an_empty_matte() -> None:
    matte = GrabCutMatting()(Image.new("RGB", (64, 64), (120, 130, 140)))
    assert matte.getchannel("A").getextrema() == (0, 0)


def test_busy_backgrounds_fall_back_to_the_middle() -> None:
    rng = np.random.default_rng(1)
    busy = rng.uniform(0, 1, (SIZE // 8, SIZE // 8, 3)).repeat(8, 0).repeat(8, 1)
    mask, colours = ball(100, 100, 60, (0.9, 0.1, 0.1))
    busy[mask] = colours[mask]
    alpha = np.asarray(GrabCutMatting()(Image.fromarray((busy.clip(0, 1) * 255).astype(np.uint8))))[..., 3]
    assert (alpha[mask] > 127).mean() > 0.6


def test_the_same_picture_gives_the_same_matte() -> None:
    picture, _ = scene("vignette", [(100, 115, 55)])
    first, second = GrabCutMatting()(picture), GrabCutMatting().to("cpu").cpu()(picture)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize("size", [(2, 2), (3, 90), (90, 3)])
def test_extreme_sizes_do_not_fail(size: tuple[int, int]) -> None:
    assert GrabCutMatting()(Image.new("RGB", size, (1, 2, 3))).size == size
