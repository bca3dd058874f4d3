"""The matting network's remover: files, sizes, and edges at the picture's own size."""

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
    refined,
    save_small_matting,
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


@pytest.mark.parametrize(("logit", "alpha", "certain"), [(9, 255, True), (0.1, 134, False), (-9, 0, True)])
def test_a_matte_is_certain_where_the_network_is(stem: Path, logit: float, alpha: int, certain: bool) -> None:
    remover, picture = remover_of(stem, logit), Image.new("RGB", (50, 50), (90, 20, 30))
    assert remover.certain(picture) is certain
    assert abs(int(np.asarray(remover(picture))[25, 25, 3]) - alpha) <= 2


def test_edges_follow_the_picture_at_its_own_size() -> None:
    """A matte at a quarter of the size: refined, its edge is where the colours change."""
    y, x = np.mgrid[0:512, 0:512]
    disc = (x - 260) ** 2 + (y - 250) ** 2 < 150**2
    noise = np.random.default_rng(0).normal(0, 4, (512, 512, 1))
    pixels = (np.where(disc[..., None], [200, 60, 30], [70, 120, 140]) + noise).clip(0, 255).astype(np.uint8)
    small = disc.reshape(128, 4, 128, 4).mean((1, 3)).astype(np.float32)
    coarse = np.asarray(Image.fromarray(small).resize((512, 512), Image.Resampling.BILINEAR))
    fine = refined(pixels, small)
    assert np.abs(fine - disc).mean() < 0.6 * np.abs(coarse - disc).mean()
    assert ((fine > 0.5) == disc).mean() > 0.999
    assert fine[disc].mean() > 0.99
