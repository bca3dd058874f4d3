"""The base colour network's stage and its terms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from trellis2_training.config import MiniConfig
from trellis2_training.data.batches import TableBank, view_batch
from trellis2_training.loop import Recipe, train
from trellis2_training.runtime import Runtime
from trellis2_training.stages import base_color
from trellis2_training.stages.base_color import base_color_terms, correlation


def test_the_stage_learns(
    config: MiniConfig, bank: TableBank, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    seen = view_batch(bank, bank.draw(4)[1], config.encoder.image_size)
    monkeypatch.setattr(base_color, "view_batch", lambda *_: seen)  # the same pictures, in other looks
    stage = base_color.BaseColor(config, bank, runtime, config.build("encoder").eval(), batch=4)
    stage.recipe = Recipe(lr=1e-2, warmup=1)
    assert train(stage, tmp_path, 60, 30) == 30
    lines = [json.loads(line) for line in (tmp_path / "train.log").read_text().splitlines()]
    assert lines[-1]["base_color"] < 0.8 * lines[0]["base_color"]


def test_untrained_it_gives_the_picture_back(config: MiniConfig) -> None:
    network, picture = config.build("base_color"), torch.rand(1, 3, 64, 64)
    assert torch.equal(network(picture, torch.randn(1, 17, config.cond)), picture)


def test_terms_and_measures_are_best_at_the_truth() -> None:
    truth, mask = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    mask[..., 4:28, 4:28] = 1
    outside = base_color_terms(truth + (1 - mask), truth, mask)
    assert float(outside["base_color"]) == float(outside["contrast"]) == 0, "only the object counts"
    assert float(outside["_correlation"]) == pytest.approx(1)
    lighter = base_color_terms(truth + 0.1, truth, mask)
    assert float(lighter["base_color"]) == pytest.approx(0.1, abs=1e-4)
    assert float(lighter["contrast"]) == pytest.approx(0, abs=1e-4), "light that is left is no pattern"
    blurred = base_color_terms(truth.mean((2, 3), keepdim=True).expand_as(truth), truth, mask)
    assert blurred["contrast"] > 0.1
    plain = torch.full_like(truth, 0.5)
    assert float(correlation(truth, plain, mask)) == 0, "a plain object has no pattern to find"
