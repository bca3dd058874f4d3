"""`verify_image`: the checks that can run here do, and a failing one fails the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from tests.trellis2.pipelines.tiny_checkpoint import write_checkpoint
from tests.trellis2_modal.deploy.hub import FolderHub
from tests.trellis2_modal.deploy.published import SETTINGS, write_hub
from trellis2.conditioning import registry
from trellis2_modal.service import image
from trellis2_modal.service.config import DeploySettings
from trellis2_modal.service.deploy import image_requirements as pins
from trellis2_modal.service.deploy import verification
from trellis2_modal.service.deploy.verification import Check, CheckError, checks, run_checks, table
from trellis2_modal.service.deploy.weights.fetch import fetch
from trellis2_modal.service.deploy.weights.manifest import weights_folder

CPU = DeploySettings(gpu="none", image="lean")


def test_every_extension_is_checked() -> None:
    assert set(verification.EXTENSION_CHECKS) == {extension.name for extension in pins.EXTENSIONS}
    names = [check.name for check in checks(DeploySettings())]
    assert names == [check.name for check in checks(CPU)]


def test_a_lean_image_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verification, "BUNDLED_WEIGHTS", write_checkpoint(tmp_path))
    monkeypatch.setattr(verification, "resolutions", lambda offered: ["512"])  # for a quick test
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
    row = verification._row(named("image to GLB", CPU))
    assert row["result"] == "failed"
    assert "pipeline.json" in row["detail"]


def named(name: str, settings: DeploySettings) -> Check:
    return next(check for check in checks(settings) if check.name == name)


CHOSEN = ("image encoder", "background remover", "published models")


def result(name: str, settings: DeploySettings) -> tuple[str, str]:
    row = verification._row(named(name, settings))
    return row["result"], row["detail"]


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights volume, with nothing on it."""
    monkeypatch.setattr(verification, "weights_folder", lambda settings: weights_folder(settings, tmp_path))
    return tmp_path


def test_chosen_weights_are_skipped_until_they_are_downloaded(volume: Path) -> None:
    for name in CHOSEN:
        assert result(name, DeploySettings(model="bundled", gpu="none"))[0] == "skipped"
        kind, words = result(name, SETTINGS)
        assert kind == "skipped"
        assert "run: modal run -m trellis2_modal.service.deploy.weights.download::download_weights" in words


def test_chosen_weights_are_loaded_as_jobs_load_them(volume: Path, tmp_path: Path) -> None:
    fetch(SETTINGS, volume, FolderHub(write_hub(tmp_path / "hub")))
    folder = weights_folder(SETTINGS, volume)
    assert result("image encoder", SETTINGS) == ("ok", "acme/eyes, 21 tokens of 24")
    assert result("background remover", SETTINGS)[0] == "skipped"
    (folder / "image_encoder" / "config.json").write_text("{}")
    assert result("image encoder", SETTINGS)[0] == "failed"
    (folder / "complete.json").unlink()
    for name in CHOSEN:
        kind, words = result(name, SETTINGS)
        assert kind == "failed"
        assert "its download has not ended; run again" in words


def test_a_remover_that_takes_the_subject_fails(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Remover:
        def __init__(self, corner: int, middle: int) -> None:
            self.alpha = (corner, middle)

        def to(self, device: str) -> None: ...

        def __call__(self, image: Image.Image) -> Image.Image:
            image.putalpha(self.alpha[0])
            image.putpixel((256, 300), (0, 0, 0, self.alpha[1]))
            return image

    monkeypatch.setattr(verification, "_part", lambda *names: (volume, {}))
    for corner, middle, expected in ((0, 255, "ok"), (255, 255, "failed"), (0, 0, "failed")):
        monkeypatch.setattr(
            registry, "build_background_remover", lambda *a, c=corner, m=middle, **k: Remover(c, m)
        )
        assert result("background remover", SETTINGS)[0] == expected


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


@pytest.mark.filterwarnings("ignore:The verify_image function is executing locally")
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
