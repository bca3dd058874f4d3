"""The roofline against what was measured, and its passes against what the samplers spend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.roofline import CARDS, stages, table
from trellis2.samplers.acceleration import forecast_steps
from trellis2.samplers.flow import strength_at, time_grid

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "gpu.json"


@pytest.mark.parametrize("stage", ["structure", "shape 1024", "texture 1024"])
def test_it_agrees_with_the_h200(stage: str) -> None:
    """Stages whose attention is cuDNN's."""
    card = next(card for card in CARDS if card.name.startswith("H200, longer"))
    records = {r["name"]: r["value"] for r in json.loads(RESULTS.read_text())["records"]}
    measured = records.get(f"sampling {stage}")
    if measured is None:
        pytest.skip("the last GPU run did not measure whole samplings")
    assert stages()[stage].seconds(card) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("name", "rescale_t", "strength"), [("structure", 5.0, 7.5), ("shape 512", 3.0, 7.5)]
)
def test_passes_are_those_of_the_samplers(name: str, rescale_t: float, strength: float, fast: bool) -> None:
    times = time_grid(12, rescale_t)
    spared = forecast_steps("fast" if fast else "exact", times, strength, (0.6, 1.0))
    computed = [i for i in range(12) if i not in spared]
    guided = [i for i in computed if strength_at(times[i], strength, (0.6, 1.0)) != 1.0]
    run = stages(fast=fast)[name]
    assert (run.conditional, run.null) == (len(computed), len(guided))


def test_the_table_has_every_card_exact_and_fast() -> None:
    lines = table().splitlines()
    assert len(lines) == 2 + 2 * len(CARDS)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
