"""Every stage that the code reports has words of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trellis2_modal.protocol.stages import EXPORT_STAGES, PHASES, STAGES, stage_title

ROOT = Path(__file__).parents[3]
REPORTED = re.compile(r"""(?:(?<!latent)_stage|monitor\.step|monitor\.report|\.stage)\(\s*f?"([a-z_ ]+)\"""")


def test_every_stage_in_the_code_has_words() -> None:
    files = [
        *(ROOT / "trellis2" / "pipelines").glob("*.py"),
        *(ROOT / "trellis2_modal" / "service").glob("*.py"),
    ]
    found = {name for file in files for name in REPORTED.findall(file.read_text(encoding="utf-8"))}
    assert {"image", "condition", "preview", "state"} <= found
    assert found <= STAGES.keys()


def test_every_step_of_the_export_has_words() -> None:
    assert set(pytest.importorskip("o_voxel.postprocess").STEPS) <= STAGES.keys()


def test_every_stage_has_a_phase() -> None:
    known = {stage for stages in PHASES.values() for stage in stages}
    assert set(STAGES) == known | set(EXPORT_STAGES)
    assert stage_title("new_stage") == "New stage"
