"""`verify_image`: the checks that can run here do, and a failing one fails the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint
from trellis2_modal.service import image
from trellis2_modal.service.config import DeploySettings
from trellis2_modal.service.deploy import image_requirements as pins
from trellis2_modal.service.deploy import verification
from trellis2_modal.service.deploy.verification import Check, CheckError, checks, run_checks, table

CPU = DeploySettings(gpu="none", image="lean")


def test_every_extension_is_checked() -> None:
    assert set(verification.EXTENSION_CHECKS) == {extension.name for extension in pins.EXTENSIONS}
    names = [check.name for check in checks(DeploySettings())]
    assert names == [check.name for check in checks(CPU)]


def test_a_lean_image_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verification, "BUNDLED_WEIGHTS", write_checkpoint(tmp_path))
    rows = {row["check"]: row for row in run_checks(CPU)}
    assert rows["GPU"]["result"] == "skipped"
    assert {rows[e.name]["result"] for e in pins.EXTENSIONS} == {"skipped"}
    for name in ("python and torch", "attention", "sparse convolution", "environment light", "image to GLB"):
        assert rows[name]["result"] == "ok", rows[name]


def test_extensions_that_are_missing_fail_by_name() -> None:
    rows = {row["check"]: row for row in map(verification._row, checks(DeploySettings(image="full"))[4:9])}
    for extension in pins.EXTENSIONS:
        if importlib.util.find_spec(extension.module.partition(".")[0]) is None:
            assert rows[extension.name]["result"] == "failed"
            assert extension.module.partition(".")[0] in rows[extension.name]["detail"]


def test_weights_that_are_missing_fail_the_generation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verification, "BUNDLED_WEIGHTS", tmp_path)
    row = verification._row(checks(CPU)[-1])
    assert row["result"] == "failed"
    assert "pipeline.json" in row["detail"]


def test_a_wrong_answer_is_a_failure() -> None:
    def wrong() -> str:
        verification.expect(False, "2 + 2 is 5")
        return "never"

    row = verification._row(Check("sums", wrong))
    assert (row["result"], row["detail"]) == ("failed", "CheckError: 2 + 2 is 5")
    with pytest.raises(CheckError):
        wrong()


def test_the_table_lines_up() -> None:
    rows = [
        {"check": "a", "result": "ok", "seconds": "0.1", "detail": "fine"},
        {"check": "a longer name", "result": "failed", "seconds": "12.0", "detail": "no"},
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert lines[2].index("ok") == lines[3].index("failed") == lines[0].index("result")


def test_verify_image_prints_the_table_and_raises(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"check": "GPU", "result": "ok", "seconds": "0.1", "detail": "A100"}
    found = [row]
    monkeypatch.setattr(verification, "run_checks", lambda settings: found)
    assert image.verify_image.local() == found
    assert "A100" in capsys.readouterr().out
    found.append(row | {"check": "cumesh", "result": "failed"})
    with pytest.raises(RuntimeError, match="1 of 2 checks failed: cumesh"):
        image.verify_image.local()
