"""The matting network's remover: files, sizes, and what GrabCut makes of its matte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trellis2.conditioning.test_grabcut import SIZE, overlap, scene
from trellis2.conditioning.matting.grabcut import GrabCutMatting
from trellis2.conditioning.matting.small_matting import (
    SmallMatting,
    SmallMattingConfig,
    SmallMattingNet,
    load_small_matting,
    save_small_matting,
    silhouette,
)
from trellis2.conditioning.registry import build_background_remover
from trellis2.errors import CheckpointError

BUNDLED_WEIGHTS = Path(__file__).parents[3] / "assets" / "weights" / "trellis2-mini"
TINY = SmallMattingConfig(image_size=32, widths=(8, 8, 16), heads=2)


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_small_matting(SmallMattingNet(TINY), tmp_path / "ckpts" / "matting")
    return tmp_path / "ckpts" / "matting"


def remover_of(stem: Path, logit: float) -> SmallMatting:
    """One whose network says the same of every pixel."""
    remover = SmallMatting(str(stem))
    torch.nn.init.zeros_(remover.model.out.weight)
    torch.nn.init.constant_(remover.model.out.bias, logit)
    return remover


def test_weights_come_back_as_they_were_saved(stem: Path) -> None:
    net = load_small_matting(stem)
    assert net.config == TINY
    again = stem.parent / "again"
    save_small_matting(net, again)
    loaded = load_small_matting(again)
    picture = torch.rand(2, 3, 32, 32)
    assert net(picture).shape == (2, 1, 32, 32)
    assert torch.equal(net.eval()(picture), loaded.eval()(picture))


@pytest.mark.parametrize("broken", ["config", "weights"])
def test_broken_files_are_named(stem: Path, broken: str) -> None:
    end = {"config": ".json", "weights": ".safetensors"}[broken]
    stem.with_name(stem.name + end).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"matting\.safetensors"):
        SmallMatting(str(stem))


def test_the_registry_finds_it_inside_a_package(stem: Path) -> None:
    entry = {"name": "SmallMatting", "args": {"model_name": "ckpts/matting"}}
    remover = build_background_remover(entry, stem.parents[1])
    assert isinstance(remover, SmallMatting)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    first, second = remover(picture), remover.to("cpu").cpu()(picture)
    assert first.mode == "RGBA"
    assert first.size == (60, 40)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    np.testing.assert_array_equal(np.asarray(first)[..., :3], np.asarray(picture))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 90), (90, 3)])
def test_extreme_sizes_do_not_fail(stem: Path, size: tuple[int, int]) -> None:
    assert SmallMatting(str(stem))(Image.new("RGB", size, (1, 2, 3))).size == size


def test_where_the_network_is_at_a_loss_grabcut_cuts_without_it(stem: Path) -> None:
    y, x = np.mgrid[0:60, 0:60]
    disc = np.hypot(x - 30, y - 30) < 18
    photo = Image.fromarray(np.where(disc[..., None], [200, 60, 30], [90, 120, 140]).astype(np.uint8))
    lost, nothing = remover_of(stem, 0.1), remover_of(stem, -9)
    for remover in (lost, nothing):
        np.testing.assert_array_equal(np.asarray(remover(photo)), np.asarray(GrabCutMatting()(photo)))
    assert ((np.asarray(lost(photo))[..., 3] > 127) == disc).mean() > 0.98
    assert lost.certain(photo), "the background is plain"
    busy = Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    assert not lost.certain(busy)
    assert np.asarray(remover_of(stem, 9)(busy))[..., 3].min() == 255
    assert remover_of(stem, 9).certain(busy)


def test_colours_decide_where_the_network_is_not_sure() -> None:
    """The network knows the middle and the rim; the edge between them is where the colours change."""
    y, x = np.mgrid[0:512, 0:512]
    distance = np.hypot(x - 260, y - 250)
    disc = distance < 150
    noise = np.random.default_rng(0).normal(0, 4, (512, 512, 1))
    pixels = (np.where(disc[..., None], [200, 60, 30], [70, 120, 140]) + noise).clip(0, 255).astype(np.uint8)
    matte = np.clip((200 - distance) / 120, 0, 1).astype(np.float32)  # a half at 140
    small = np.asarray(Image.fromarray(matte).resize((64, 64), Image.Resampling.BOX))
    found = silhouette(pixels, small)
    assert (found == disc).mean() > 0.995
    assert ((matte > 0.5) == disc).mean() < 0.98, "the network alone is off"


@pytest.mark.parametrize(("value", "kept"), [(0.0, False), (0.4, False), (0.6, True), (1.0, True)])
def test_a_matte_of_one_value_needs_no_colours(value: float, kept: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    found = silhouette(pixels, np.full((32, 32), value, dtype=np.float32))
    assert found.all() if kept else not found.any()


@pytest.mark.parametrize("kind", ["plain", "gradient", "vignette", "shadow"])
def test_the_bundled_network_finds_a_subject_that_it_never_saw(kind: str) -> None:
    """Shaded balls; with a hard shadow beside them, which GrabCut alone takes for a part of them."""
    entry = json.loads((BUNDLED_WEIGHTS / "pipeline.json").read_text())["args"]["rembg_model"]
    remover = build_background_remover(entry, BUNDLED_WEIGHTS)
    picture, truth = scene("plain" if kind == "shadow" else kind, [(90, 95, 45), (70, 50, 25)])
    if kind == "shadow":
        y, x = np.mgrid[0:SIZE, 0:SIZE]
        shadow = (((x - 130) / 55) ** 2 + ((y - 140) / 18) ** 2 < 1) & ~truth
        pixels = np.asarray(picture) * np.where(shadow, 0.4, 1.0)[..., None]
        picture = Image.fromarray(pixels.astype(np.uint8))
        assert overlap(GrabCutMatting()(picture), truth) < 0.8
    assert overlap(remover(picture), truth) > 0.97
