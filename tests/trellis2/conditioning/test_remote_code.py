"""Background removers bring model code: of the kind that RMBG-2.0 has, with and without `post_init()`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trellis2.conditioning.matting.birefnet import BiRefNet
from trellis2.conditioning.registry import build_background_remover
from trellis2.conditioning.trusted_code import tell_how_to_pin, trusted_revision
from trellis2.errors import CheckpointError
from trellis2.pipelines.config import read_pipeline_config

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

class CutterConfig(PretrainedConfig):
    model_type = "cutter"

class Cutter(PreTrainedModel):
    config_class = CutterConfig

    def __init__(self, config):
        super().__init__(config)
        self.weigh = nn.Conv2d(3, 1, 1, bias=False)
        {last}

    def forward(self, x):
        return [self.weigh(x)]
"""
OLD, NEW = "pass  # written for transformers 4", "self.post_init()"
BROKEN = "self.weigh.no_such_thing"


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS2_TRUST_CODE", "1")


def write_repository(folder: Path, last: str) -> Path:
    """A folder as such a repository is: config, model code, weights; bright red is the subject."""
    folder.mkdir()
    names = {"AutoConfig": "cutter.CutterConfig", "AutoModelForImageSegmentation": "cutter.Cutter"}
    config = {"architectures": ["Cutter"], "model_type": "cutter", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "cutter.py").write_text(CODE.format(last=last))
    save_file(
        {"weigh.weight": torch.tensor([50.0, 0.0, 0.0]).reshape(1, 3, 1, 1)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@pytest.mark.parametrize(("name", "last"), [("old_style", OLD), ("new_style", NEW)])
def test_code_of_either_age_loads_and_cuts(
    name: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    remover = BiRefNet(str(write_repository(tmp_path / name, last)))
    picture = Image.new("RGB", (32, 32))
    picture.paste((255, 0, 0), (8, 8, 24, 24))
    alpha = remover(picture).getchannel("A")
    assert alpha.getpixel((16, 16)) == 255
    assert alpha.getpixel((1, 1)) == 0
    remover.to("cpu")


def test_code_that_fails_is_a_typed_error_that_names_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = write_repository(tmp_path / "broken", BROKEN)
    named = r"background remover .*broken.*AttributeError: .*no_such_thing"
    with pytest.raises(CheckpointError, match=named):
        BiRefNet(str(folder))


def test_code_is_not_run_unless_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRELLIS2_TRUST_CODE")
    mark = tmp_path / "ran"
    folder = write_repository(tmp_path / "evil", f"open({str(mark)!r}, 'w')")
    entry = {"name": "BiRefNet", "args": {"model_name": "evil"}}
    with pytest.raises(CheckpointError, match="TRELLIS2_TRUST_CODE"):
        build_background_remover(entry, tmp_path)  # as a folder's own pipeline.json would name it
    with pytest.raises(CheckpointError, match="trust"):
        BiRefNet("somebody/else")
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "moved")
    (tmp_path / "briaai").mkdir()
    (tmp_path / "moved").rename(tmp_path / "briaai" / "RMBG-2.0")
    with pytest.raises(CheckpointError, match="trust"):
        BiRefNet("briaai/RMBG-2.0")  # a folder of that name is not the repository
    assert not mark.exists()


COMMIT, OTHER = "1f" * 20, "2e" * 20
NAME = "briaai/RMBG-2.0"


@pytest.mark.parametrize(
    ("said", "name", "asked", "runs_at"),
    [
        ("", NAME, None, None),
        (f"{NAME}@{COMMIT}", NAME, None, COMMIT),
        (f"{NAME}@{COMMIT}", NAME, COMMIT, COMMIT),
        (f"some/one@{OTHER}, {NAME}@{COMMIT}", "some/one", None, OTHER),
        ("1", "some/one", "main", "main"),
    ],
)
def test_code_runs_at_the_pinned_commit(
    monkeypatch: pytest.MonkeyPatch, said: str, name: str, asked: str | None, runs_at: str | None
) -> None:
    monkeypatch.setenv("TRELLIS2_TRUST_CODE", said)
    assert trusted_revision(name, asked) == runs_at


@pytest.mark.parametrize(
    ("said", "name", "asked"),
    [
        ("", "some/one", None),
        ("", NAME, "refs/pr/7"),  # anybody may open a pull request on the hub
        ("", NAME, COMMIT),
        (f"{NAME}@{COMMIT}", NAME, OTHER),
        (f"{NAME}@{COMMIT}", "some/one", None),
        (f"{NAME}@main", NAME, None),
        ("yes", NAME, None),
    ],
)
def test_no_configuration_chooses_code(
    monkeypatch: pytest.MonkeyPatch, said: str, name: str, asked: str | None
) -> None:
    monkeypatch.setenv("TRELLIS2_TRUST_CODE", said)
    args = {"model_name": name} | ({"revision": asked} if asked else {})
    with pytest.raises(CheckpointError, match="TRELLIS2_TRUST_CODE"):
        build_background_remover({"name": "BiRefNet", "args": args})


def test_unpinned_code_says_how_to_pin_it(caplog: pytest.LogCaptureFixture) -> None:
    tell_how_to_pin(NAME, None, COMMIT)
    assert f"TRELLIS2_TRUST_CODE={NAME}@{COMMIT}" in caplog.text
    caplog.clear()
    tell_how_to_pin(NAME, COMMIT, COMMIT)
    assert caplog.text == ""


def test_a_deep_config_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError):
        read_pipeline_config(tmp_path, "pipeline.json")
