"""Pictures for the matting network, its stage, and how background removers are measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trellis2_training import world
from trellis2_training.cli import main
from trellis2_training.config import MiniConfig
from trellis2_training.data import backgrounds as bg
from trellis2_training.data.batches import TableBank
from trellis2_training.evaluation.matting import overlap
from trellis2_training.loop import Recipe, train
from trellis2_training.runtime import Runtime
from trellis2_training.stages.matting import Matting, matting_terms

from trellis2.conditioning.matting.small_matting import save_small_matting

SIZE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cut() -> bg.Cutout:
    return bg.cutouts(world.table_bank(0, 4), torch.Generator().manual_seed(0), SIZE)


def draw(seed: int = 1) -> bg.Draw:
    return bg.Draw(torch.Generator().manual_seed(seed), CPU)


def test_an_object_keeps_its_colours_on_every_background(cut: bg.Cutout) -> None:
    inside = cut.mask.expand(-1, 3, -1, -1) > 0.99
    outside = cut.mask.expand(-1, 3, -1, -1) < 0.01
    assert inside.any()
    assert outside.any()
    for kind in bg.TEXTURES:
        made = bg.composites(cut, [kind] * 4, draw())
        assert made.shape == (4, 3, SIZE, SIZE)
        assert made.isfinite().all()
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
        assert (made - cut.rgb)[inside].abs().mean() < 0.15, kind
        assert made[outside].std() > 0.01, f"{kind}: the four backgrounds differ"


def test_a_shadow_falls_on_the_floor_alone(cut: bg.Cutout) -> None:
    floor = cut.ground > 0.5
    assert (cut.sunlit[floor] < 0.5).any(), "the object shades its floor"
    assert (cut.sunlit[~floor] == 1).all() or not (~floor).any()


def test_mirrored_pictures_keep_their_mattes(bank: TableBank) -> None:
    pool = bg.CutoutPool(bank, SIZE, most=4, at_once=2)
    pool.grow()
    assert pool.filled == 2
    pool.grow()
    oldest = pool.kept[0].clone()
    pool.grow()
    assert pool.filled == 4
    assert not torch.equal(pool.kept[0], oldest), "the oldest make room"
    pool.kept[:, :3] = 1.0
    pool.kept[:, 3] = 0.0
    pool.kept[:, 3, :, : SIZE // 4] = 1.0  # white subjects on the left
    pictures, truth = pool.batch(16)
    left, right = truth[..., 0].mean((1, 2)), truth[..., -1].mean((1, 2))
    assert set(left.tolist()) == set(right.tolist()) == {0.0, 1.0}, "some are mirrored"
    assert pictures[truth.expand(-1, 3, -1, -1) > 0.5].mean() > 0.8


def test_the_stage_learns(config: MiniConfig, bank: TableBank, runtime: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stage = Matting(config, bank, runtime, batch=4, most=4, every=100, first=2)
    stage.recipe = Recipe(lr=1e-2, warmup=1)
    assert train(stage, tmp_path, 60, 30) == 30
    lines = [json.loads(line) for line in (tmp_path / "train.log").read_text().splitlines()]
    assert lines[-1]["entropy"] < 0.9 * lines[0]["entropy"]


def test_terms_and_measures_are_best_at_the_truth() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1
    good, bad = matting_terms(20 * truth - 10, truth), matting_terms(10 - 20 * truth, truth)
    assert float(good["_iou"]) == 1
    assert float(bad["_iou"]) == 0
    assert all(good[name] < bad[name] for name in ("entropy", "alpha", "dice"))
    assert overlap(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)) == (1.0, 0.0)
    assert overlap(np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 1.0]], np.float32)) == (0.5, 0.5)


def test_the_command_measures_a_package(config: MiniConfig, tmp_path: Path) -> None:
    save_small_matting(config.build("matting"), tmp_path / "ckpts" / "matting")
    entry = {"name": "SmallMatting", "args": {"model_name": "ckpts/matting"}}
    (tmp_path / "pipeline.json").write_text(json.dumps({"name": "x", "args": {"rembg_model": entry}}))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(tmp_path / "photos" / "green.png")
    asked = [
        "matting",
        str(tmp_path),
        "--objects",
        "8",
        "--size",
        "32",
        "--out",
        str(tmp_path / "figures.json"),
    ]
    asked += ["--pictures", str(tmp_path / "kept"), "--photos", str(tmp_path / "photos")]
    assert main([*asked, "--sheet", str(tmp_path / "sheet.png")]) == 0
    means = json.loads((tmp_path / "figures.json").read_text())["means"]
    assert {"all", "textured", "photo", "wood"} <= set(means)
    assert {
        f"{name} {figure}" for name in ("GrabCutMatting", "SmallMatting") for figure in ("iou", "error")
    } <= set(means["all"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] == 6 * 3 * 128
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 8
    assert kept[7].name == "0007_photo_32.png"
    before = means["all"]["GrabCutMatting iou"]
    assert main(asked) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["means"]["all"]["GrabCutMatting iou"] == before
