"""The matting network's remover: files, sizes, and what GrabCut makes of its matte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.mark.parametrize(("logit", "alpha", "certain"), [(9, 255, True), (0.1, 255, False), (-9, 0, True)])
def test_a_matte_is_certain_where_the_network_is(stem: Path, logit: float, alpha: int, certain: bool) -> None:
    remover, picture = remover_of(stem, logit), Image.new("RGB", (50, 50), (90, 20, 30))
    assert remover.certain(picture) is certain
    assert abs(int(np.asarray(remover(picture))[25, 25, 3]) - alpha) <= 2


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
