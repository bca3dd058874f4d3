from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trellis2.errors import CheckpointError
from trellis2.models import MODELS, Model, from_pretrained, save_pretrained
from trellis2.models.loading import build, load_weights
from trellis2.models.streaming_loader import read_header

from .configs import LOW_PRECISION, TINY

NAME = "SparseStructureDecoder"


def written(folder: Path, name: str, seed: int = 0) -> tuple[Path, Model]:
    """A checkpoint with random weights in the published dtypes, and the model it holds."""
    torch.manual_seed(seed)
    args = {**TINY[name], **LOW_PRECISION[name]}
    model = build({"name": name, "args": args})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    path = folder / f"{name}_{seed}"
    save_pretrained(model, path, args)
    return path, model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return written(tmp_path, NAME)[0]


@pytest.mark.parametrize("name", TINY)
def test_a_written_checkpoint_loads_with_parameters_in_their_own_dtypes(name: str, tmp_path: Path) -> None:
    path, model = written(tmp_path, name)
    stored = load_file(f"{path}.safetensors")
    assert {k: v.dtype for k, v in stored.items()} == model.stored_dtypes()
    loaded = from_pretrained(path)
    assert type(loaded) is MODELS[name]
    assert not loaded.training
    for key, parameter in model.named_parameters():
        ours = loaded.get_parameter(key)
        assert ours.dtype == parameter.dtype
        assert torch.equal(ours, stored[key].to(parameter.dtype)), key
        assert ours.requires_grad
    for key, buffer in model.named_buffers():
        assert torch.equal(loaded.get_buffer(key), buffer)


def test_a_dtype_override_widens_the_whole_model(tmp_path: Path) -> None:
    path, model = written(tmp_path, "SLatFlowModel")
    loaded = from_pretrained(path, dtype="float32")
    assert loaded.dtype == torch.float32
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    key = "blocks.0.mlp.mlp.0.weight"
    assert torch.equal(loaded.get_parameter(key), model.get_parameter(key).float())


def test_several_files_load_side_by_side(tmp_path: Path) -> None:
    names = ["SLatFlowModel", "SparseUnetVaeDecoder", "SparseStructureDecoder", "SLatFlowModel"]
    made = [written(tmp_path, name, seed) for seed, name in enumerate(names)]
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda pair: from_pretrained(pair[0]), made))
    assert [type(m).__name__ for m in loaded] == names
    for (path, _), model in zip(made, loaded, strict=True):
        stored = load_file(f"{path}.safetensors")
        assert all(torch.equal(p, stored[k].to(p.dtype)) for k, p in model.named_parameters())
        assert not any(p.is_meta for p in model.parameters())


def test_loading_initialises_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    from_pretrained(checkpoint)
    assert torch.equal(torch.get_rng_state(), state)


def test_loading_reads_no_more_than_one_tensor_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = written(tmp_path, "FlexiDualGridVaeDecoder")
    live: list[int] = []
    empty = torch.empty

    def counting(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        if made.device.type == "cpu":
            live.append(made.nbytes)
        return made

    fresh = build(json.loads(Path(f"{path}.json").read_text()), device="meta")
    monkeypatch.setattr(torch, "empty", counting)
    load_weights(fresh, Path(f"{path}.safetensors"))
    weights = sum(p.nbytes for p in model.parameters())
    staged = sum(p.numel() * 2 for p in model.parameters() if p.dtype == torch.float32)
    # Tensors that keep their dtype are read in place; only those that widen pass through a buffer each.
    assert sum(live) == weights + staged


def corrupted(checkpoint: Path, change: Any) -> None:
    tensors = load_file(f"{checkpoint}.safetensors")
    change(tensors)
    save_file(tensors, f"{checkpoint}.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("input_layer.bias"), r"missing input_layer.bias \[16\]"),
        (lambda t: t.update(extra=torch.zeros(3)), r"unexpected extra \[3\]"),
        (
            lambda t: t.update({"input_layer.bias": torch.zeros(5)}),
            r"misshapen input_layer.bias: file has \[5\], the model needs \[16\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_with_their_shapes(
    checkpoint: Path, change: Any, message: str
) -> None:
    corrupted(checkpoint, change)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(checkpoint)


def test_extra_tensors_are_allowed_when_not_strict(checkpoint: Path) -> None:
    corrupted(checkpoint, lambda t: t.update(extra=torch.zeros(3)))
    from_pretrained(checkpoint, strict=False)


def test_a_stored_buffer_is_no_extra_tensor(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "SparseStructureFlowModel")
    corrupted(path, lambda t: t.update(rope_phases=torch.zeros(64, 8)))
    assert from_pretrained(path).get_buffer("rope_phases").dtype == torch.complex64


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 0.5, 0.999])
def test_truncated_files_are_refused(checkpoint: Path, keep: float) -> None:
    file = Path(f"{checkpoint}.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=re.escape(str(file))):
        from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"shape": [1]}},
        {"a": 3},
        [],
    ],
)
def test_headers_that_do_not_add_up_are_refused(header: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with open(path, "rb") as file, pytest.raises(CheckpointError):
        read_header(file, path)


def test_configs_that_cannot_be_built_are_refused(checkpoint: Path) -> None:
    config = Path(f"{checkpoint}.json")
    for text, message in [
        ("{", "not a readable JSON"),
        ("[]", "'name' and 'args'"),
        ('{"name": "Unknown", "args": {}}', "'Unknown' is unknown; known are SparseStructureFlowModel"),
        ('{"name": "SparseStructureDecoder", "args": {"colour": 1}}', "colour"),
    ]:
        config.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            from_pretrained(checkpoint)


def test_half_a_checkpoint_and_none_are_told_apart(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        from_pretrained(checkpoint.parent / "nothing")
    Path(f"{checkpoint}.json").unlink()
    with pytest.raises(CheckpointError, match="needs both"):
        from_pretrained(checkpoint)


def test_hub_files_come_from_the_named_repository_and_revision(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def hub(repo: str, filename: str, revision: str | None = None) -> str:
        asked.append((repo, filename, revision))
        return f"{checkpoint}{Path(filename).suffix}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    from_pretrained("owner/repo/ckpts/decoder", revision="abc")
    assert asked == [
        ("owner/repo", "ckpts/decoder.json", "abc"),
        ("owner/repo", "ckpts/decoder.safetensors", "abc"),
    ]


def test_a_hub_that_cannot_be_reached_is_a_checkpoint_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(repo: str, filename: str, revision: str | None = None) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    with pytest.raises(CheckpointError, match=r"ckpts/x\.json of owner/repo.*no route"):
        from_pretrained("owner/repo/ckpts/x")


def test_training_configs_name_the_elastic_variants(tmp_path: Path) -> None:
    args = TINY["SLatFlowModel"]
    assert type(build({"name": "ElasticSLatFlowModel", "args": args})) is MODELS["SLatFlowModel"]
