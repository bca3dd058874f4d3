"""Weights: fetched once, checked, completed after an interruption, and refused when they are not whole."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import errors as hub_errors
from safetensors.numpy import load_file, save_file

from tests.trellis2_modal.deploy.hub import FolderHub
from tests.trellis2_modal.deploy.published import DECODER, ENCODER, MODEL, SETTINGS, write_hub
from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.pipelines import config as pipeline_config
from trellis2_modal.protocol.requests import SAMPLER_FIELDS
from trellis2_modal.service.config import (
    BUNDLED_MODEL,
    BUNDLED_WEIGHTS,
    GATED_ENCODER,
    GATED_REMOVER,
    OPEN_ENCODER,
    OPEN_REMOVER,
    PIXEL_MODEL,
    PIXEL_REVISION,
    PUBLISHED_MODEL,
    PUBLISHED_REVISION,
    DeploySettings,
)
from trellis2_modal.service.deploy import dinov3_timm
from trellis2_modal.service.deploy.modal_calls import capabilities_of
from trellis2_modal.service.deploy.model_host import load_pipeline
from trellis2_modal.service.deploy.weights import download as weights
from trellis2_modal.service.deploy.weights import fetch as weights_fetch
from trellis2_modal.service.deploy.weights import hub as weights_hub
from trellis2_modal.service.deploy.weights.fetch import fetch, wanted_models
from trellis2_modal.service.deploy.weights.hub import RemoteFile, explained
from trellis2_modal.service.deploy.weights.known import PUBLISHED_FILES
from trellis2_modal.service.deploy.weights.manifest import (
    DOWNLOAD_COMMAND,
    MARKER,
    Manifest,
    WeightsError,
    bundled_manifest,
    check_folder,
    folder_name,
    offered_types,
    parse_manifest,
    split_model_path,
    weights_folder,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub(published: Path) -> FolderHub:
    return FolderHub(published)


def test_a_download_is_complete_checked_and_done_once(hub: FolderHub, tmp_path: Path) -> None:
    commits: list[int] = []
    manifest = fetch(SETTINGS, tmp_path, hub, lambda: commits.append(1))
    folder = weights_folder(SETTINGS, tmp_path)
    assert check_folder(folder) == manifest
    assert manifest.pipeline_types == ("512", "1024", "1024_cascade", "1536_cascade")
    assert set(manifest.models) == wanted_models() | {"shape_slat_encoder"}
    assert manifest.texture_types == ("512", "1024")
    assert (folder / DECODER / "ckpts" / "sparse_structure_decoder.safetensors").is_file()
    assert (folder / "image_encoder" / "model.safetensors").is_file()
    assert not list(folder.rglob("*.part"))
    unused = ("onnx", "README", "tex_slat_encoder.")
    assert not any(word in name for name in hub.downloads for word in unused)
    assert len(commits) == len(hub.downloads) + 1
    hub.downloads.clear()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert fetch(SETTINGS, tmp_path, hub) == manifest
    assert hub.downloads == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_download_offers_the_types_that_its_weights_name(published: Path, tmp_path: Path) -> None:
    """As a pipeline that loads them does."""
    shutil.copytree(published, tmp_path / "hub")
    for path in (tmp_path / "hub").rglob("pipeline.json"):
        config = json.loads(path.read_text())
        config["args"] |= {"pipeline_types": ["512", "1024"], "default_pipeline_type": "512"}
        path.write_text(json.dumps(config))
    manifest = fetch(SETTINGS, tmp_path / "volume", FolderHub(tmp_path / "hub"))
    assert (manifest.pipeline_types, manifest.default_type) == (("512", "1024"), "512")


def test_the_small_networks_that_a_config_names_come_too(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "hub")
    model = tmp_path / "hub" / MODEL
    config = json.loads((model / "pipeline.json").read_text())
    for key in ("pixel_source", "structure_refiner"):
        config["args"][key] = f"ckpts/{key}"
        for suffix in (".json", ".safetensors"):
            (model / "ckpts" / f"{key}{suffix}").write_bytes(b"{}")
    (model / "pipeline.json").write_text(json.dumps(config))
    fetch(SETTINGS, tmp_path / "volume", FolderHub(tmp_path / "hub"))
    fetched = {path.name for path in (weights_folder(SETTINGS, tmp_path / "volume") / "ckpts").iterdir()}
    assert {"pixel_source.json", "structure_refiner.json", "structure_refiner.safetensors"} <= fetched


def test_an_interrupted_download_goes_on_where_it_stopped(hub: FolderHub, tmp_path: Path) -> None:
    hub.cut_after = 6
    with pytest.raises(WeightsError):
        fetch(SETTINGS, tmp_path, hub)
    folder = weights_folder(SETTINGS, tmp_path)
    with pytest.raises(WeightsError, match="has not ended; run again: modal run"):
        check_folder(folder)
    first = set(hub.downloads)
    hub.downloads.clear()
    hub.cut_after = None
    fetch(SETTINGS, tmp_path, hub)
    assert first.isdisjoint(hub.downloads)
    check_folder(folder)


def test_a_damaged_file_never_gets_its_name(hub: FolderHub, tmp_path: Path) -> None:
    hub.damaged = {"ckpts/tex_slat_decoder.safetensors"}
    with pytest.raises(WeightsError, match=r"tex_slat_decoder.*digest"):
        fetch(SETTINGS, tmp_path, hub)
    folder = weights_folder(SETTINGS, tmp_path)
    assert not (folder / "ckpts" / "tex_slat_decoder.safetensors").exists()
    hub.damaged = set()
    fetch(SETTINGS, tmp_path, hub)


def test_a_known_digest_wins_over_what_the_hub_says(
    hub: FolderHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ckpts/tex_slat_decoder.json"
    monkeypatch.setitem(PUBLISHED_FILES, (MODEL, "commit-of-main", name), (0, "f" * 64))  # type: ignore[index]
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(SETTINGS, tmp_path, hub)


@pytest.mark.parametrize("damage", ["missing", "short", "manifest", "no folder"])
def test_a_folder_that_is_not_whole_says_what_to_run(hub: FolderHub, tmp_path: Path, damage: str) -> None:
    fetch(SETTINGS, tmp_path, hub)
    folder = weights_folder(SETTINGS, tmp_path)
    victim = folder / "ckpts" / "shape_slat_decoder.safetensors"
    if damage == "missing":
        victim.unlink()
    elif damage == "short":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif damage == "manifest":
        (folder / MARKER).write_text("{}")
    else:
        folder = folder.with_name("elsewhere")
    with pytest.raises(WeightsError) as caught:
        check_folder(folder)
    assert DOWNLOAD_COMMAND in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": "acme/nothing"}, "no repository acme/nothing"),
        ({"model": DECODER}, "no pipeline.json"),
        ({"image_encoder": DECODER}, "no safetensors file"),
    ],
)
def test_a_wrong_choice_is_named(hub: FolderHub, tmp_path: Path, change: dict[str, str], text: str) -> None:
    with pytest.raises(WeightsError, match=text):
        fetch(dataclasses.replace(SETTINGS, **change), tmp_path, hub)  # type: ignore[arg-type]


def test_a_choice_has_a_folder_of_its_own() -> None:
    base = DeploySettings()
    names = {
        folder_name(settings)
        for settings in (
            base,
            DeploySettings(revision="main"),
            DeploySettings(image_encoder=OPEN_ENCODER),
            DeploySettings(background_remover=GATED_REMOVER),
            DeploySettings(image_encoder_revision="abc"),
        )
    }
    assert len(names) == 5
    assert folder_name(base) == folder_name(DeploySettings())
    assert folder_name(base).startswith("TRELLIS.2-4B-af44b45f2e35-")
    assert weights_folder(DeploySettings(model=BUNDLED_MODEL)).name == "trellis2-mini"


def test_what_models_offer() -> None:
    everything = wanted_models()
    assert offered_types(everything) == ("512", "1024", "1024_cascade", "1536_cascade")
    assert offered_types(everything - {"tex_slat_flow_model_1024"}) == ("512",)
    assert offered_types(everything - {"shape_slat_decoder"}) == ()


def test_model_paths() -> None:
    assert split_model_path("ckpts/x", "acme/mini") == ("acme/mini", "ckpts/x")
    assert split_model_path("acme/other/ckpts/x", "acme/mini") == ("acme/other", "ckpts/x")


def test_the_published_digests_are_complete() -> None:
    files = [key for key in PUBLISHED_FILES if key[0] == PUBLISHED_MODEL]
    assert {revision for _, revision, _ in files} == {PUBLISHED_REVISION}
    known = {key: value for key, value in PUBLISHED_FILES.items() if key[0] != PIXEL_MODEL}
    stems = {path.rpartition(".")[0] for _, _, path in known}
    assert len(stems) * 2 == len(known) == 16
    assert all(size > 0 and len(digest or "") == 64 for size, digest in known.values())


def test_pixel_aligned_files_have_the_size_of_their_tensors_and_the_decoders_are_the_known_ones() -> None:
    pixel = {path: value for (repo, _, path), value in PUBLISHED_FILES.items() if repo == PIXEL_MODEL}
    assert len(pixel) == 4 * 2 + 3
    others = {path: v for (repo, _, path), v in PUBLISHED_FILES.items() if repo != PIXEL_MODEL}
    for path, (size, digest) in pixel.items():
        if "_dec_" in path:
            assert (size, digest) == others[path]
        else:
            plain = path.replace("_mv.", ".")
            assert (size, digest) == (pixel[plain][0], None)
            assert size > 2 * others[plain][0], "float32 with a linear map a block more"


def test_known_models_bring_their_commit_and_another_has_its_branch() -> None:
    assert DeploySettings().revision == PUBLISHED_REVISION
    for name in ("pixal3d", "pixal3d-mv", PIXEL_MODEL):
        settings = DeploySettings(model=name)
        assert (settings.source.repo, settings.revision) == (PIXEL_MODEL, PIXEL_REVISION)
    assert DeploySettings(model="acme/mini").revision == "main"
    assert DeploySettings(model="pixal3d", revision="abc").revision == "abc"
    assert folder_name(DeploySettings(model="pixal3d")) != folder_name(DeploySettings(model="pixal3d-mv"))


def test_what_is_known_of_pixel_aligned_pipelines_is_what_the_pipeline_does() -> None:
    from trellis2.pipelines.family import FAMILIES

    for name, family in FAMILIES.items():
        manifest = Manifest("m", "r", "e", "b", tuple(wanted_models()), pipeline=name)
        assert manifest.views == (family.views[0], family.views[-1], family.pixel_aligned)
        assert family.pipeline_types in (None, manifest.pipeline_types)


@pytest.mark.parametrize("model", ["pixal3d", "pixal3d-mv"])
def test_pixel_aligned_weights_come_with_naf_and_every_part(
    pixel_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    root, eyes, remover = tmp_path / "hub", "acme/eyes", "acme/remover"
    (root / PIXEL_MODEL).parent.mkdir(parents=True)
    shutil.copytree(pixel_checkpoint, root / PIXEL_MODEL)
    for config in (root / PIXEL_MODEL).glob("pipeline*.json"):
        document = json.loads(config.read_text())
        document["args"] |= {"image_cond_model": None, "rembg_model": None}
        document["args"]["models"]["sparse_structure_decoder"] = "ckpts/sparse_structure_decoder"
        config.write_text(json.dumps(document))
    for suffix in (".json", ".safetensors"):
        decoder = pixel_checkpoint_decoder(pixel_checkpoint).with_suffix(suffix)
        shutil.copy(decoder, root / PIXEL_MODEL / "ckpts")
    shutil.copytree(pixel_checkpoint / "ckpts" / "dinov3-16", root / eyes)
    shutil.copytree(pixel_checkpoint / "ckpts" / "dinov3-16", root / remover)
    (root / "valeoai" / "NAF").mkdir(parents=True)
    naf = (root / PIXEL_MODEL / "ckpts" / "naf_release.pth").rename(root / "valeoai/NAF/naf_release.pth")
    settings = DeploySettings(model=model, image_encoder=eyes, background_remover=remover)
    hub = FolderHub(root)
    with pytest.raises(WeightsError, match=r"naf_release.*SHA-256"):
        fetch(settings, tmp_path / "volume", hub)
    digest = hashlib.sha256(naf.read_bytes()).hexdigest()
    item = dataclasses.replace(weights_fetch.UPSAMPLER, remote=RemoteFile(naf.name, 0, digest))
    monkeypatch.setattr(weights_fetch, "UPSAMPLER", item)
    manifest = fetch(settings, tmp_path / "volume", hub)
    assert manifest.pipeline_types == ("1024_cascade", "1536_cascade")
    assert manifest.views == ((2, 8, True) if model == "pixal3d-mv" else (1, 1, True))
    folder = weights_folder(settings, tmp_path / "volume")
    shutil.rmtree(folder / "background_remover")  # not a real one
    monkeypatch.setattr(pipeline_config, "BIREFNET", {"name": "GrabCutMatting"})
    pipeline: Any = load_pipeline(folder, "cpu")
    assert pipeline.family.views[-1] == manifest.views[1]
    assert pipeline.feature_upsampler is not None


def test_small_networks_of_its_own_come_with_a_model(tmp_path: Path) -> None:
    """Weights like the bundled ones, on the hub: no other repository is asked for encoder or remover."""
    repo = tmp_path / "hub" / "acme" / "mini"
    shutil.copytree(BUNDLED_WEIGHTS, repo)
    settings = DeploySettings(model="acme/mini")
    hub = FolderHub(tmp_path / "hub")
    manifest = fetch(settings, tmp_path / "volume", hub)
    assert manifest.pipeline_types == bundled_manifest().pipeline_types
    assert all(name.startswith("acme/mini/") for name in hub.downloads)
    folder = weights_folder(settings, tmp_path / "volume")
    stored = {path.stem for path in (folder / "ckpts").iterdir()}
    assert {"pixel_source", "image_encoder", "matting"} <= stored
    pipeline: Any = load_pipeline(folder, "cpu")
    assert pipeline.pixel_source is not None
    assert pipeline.image_cond_model.model_name == str(folder / "ckpts" / "image_encoder")
    assert pipeline.rembg_model.model_name == str(folder / "ckpts" / "matting")


def pixel_checkpoint_decoder(folder: Path) -> Path:
    models = json.loads((folder / "pipeline.json").read_text())["args"]["models"]
    return Path(models["sparse_structure_decoder"] + ".json")


def test_a_release_is_looked_through_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    asset = {"name": "naf_release.pth", "browser_download_url": (tmp_path / "file").as_uri()}
    (tmp_path / "releases").write_text(json.dumps([{"assets": []}, {"assets": [asset]}]))
    monkeypatch.setattr(weights_hub, "RELEASES", (tmp_path / "releases").as_uri())
    weights_hub.download_release("acme/x", "naf_release.pth", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"weights"
    with pytest.raises(WeightsError, match=r"releases holds no other\.pth"):
        weights_hub.download_release("acme/x", "other.pth", tmp_path / "target")
    (tmp_path / "file").unlink()
    with pytest.raises(WeightsError, match=r"cannot be downloaded from .*acme/x/releases"):
        weights_hub.download_release("acme/x", "naf_release.pth", tmp_path / "target.part")


def test_the_weights_own_samplers_are_known_without_loading_them() -> None:
    manifest = bundled_manifest()
    own = Trellis2ImageTo3DPipeline.from_pretrained(BUNDLED_WEIGHTS, device="cpu").sampler_settings()
    assert manifest.samplers["ss_guidance_strength"] == own["sparse_structure"]["guidance_strength"] == 1.0
    assert manifest.samplers.keys() == SAMPLER_FIELDS.keys()

    async def read() -> Manifest:
        return manifest

    found = asyncio.run(capabilities_of(read, DeploySettings(model=BUNDLED_MODEL)))
    assert found.samplers == manifest.samplers
    assert (found.pipeline_types, found.default_type) == (("512", "1024_cascade"), "512")
    assert parse_manifest(manifest.dump()) == manifest


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"files": [{"path": 1}]}', b"\xff"])
def test_a_manifest_that_is_none(data: bytes) -> None:
    with pytest.raises(WeightsError, match="modal run"):
        parse_manifest(data)


# --- the hub's errors ---------------------------------------------------------------------------------------


def _response(status: int) -> Any:
    import importlib

    library = importlib.import_module(hub_errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    return library.Response(status, request=library.Request("GET", "https://hub.example/x"))


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (
            hub_errors.GatedRepoError,
            ["accept its licence", "modal secret create huggingface-secret", OPEN_ENCODER],
        ),
        (hub_errors.RevisionNotFoundError, ["TRELLIS2_REVISION", "no revision 'abc'"]),
        (hub_errors.RepositoryNotFoundError, ["TRELLIS2_MODEL"]),
        (hub_errors.HfHubHTTPError, ["cannot be reached", DOWNLOAD_COMMAND]),
    ],
)
def test_every_error_of_the_hub_says_what_to_run(kind: type[Exception], advice: list[str]) -> None:
    error = kind("no", response=_response(404))  # type: ignore[call-arg]
    with pytest.raises(WeightsError) as caught, explained(GATED_ENCODER, "abc"):
        raise error
    for part in advice:
        assert part in str(caught.value)


def test_no_network_says_so() -> None:
    with pytest.raises(WeightsError, match="cannot be reached"), explained(MODEL, "main"):
        raise httpx.ConnectError("no route")


def test_a_missing_token_is_said_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: FolderHub
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(WeightsError, match="modal secret create huggingface-secret HF_TOKEN=YOUR_TOKEN"):
        weights.run(DeploySettings(), tmp_path, hub)
    only_remover = DeploySettings(image_encoder=OPEN_ENCODER, background_remover=GATED_REMOVER)
    assert only_remover.gated_sources == (GATED_REMOVER,)
    assert DeploySettings(image_encoder=OPEN_ENCODER, background_remover=OPEN_REMOVER).gated_sources == ()


def test_the_modal_function_runs_locally(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: FolderHub, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "SETTINGS", SETTINGS)
    monkeypatch.setattr(weights, "HuggingFaceHub", lambda: hub)
    monkeypatch.setattr(weights, "default_data_dir", lambda: tmp_path)
    with pytest.warns(UserWarning, match="locally"):
        summary = weights.download_weights.local()
    assert check_folder(Path(summary["folder"])).model == MODEL
    assert "pipeline_types" in capsys.readouterr().out


# --- timm's copy of DINOv3 ----------------------------------------------------------------------------------


@contextmanager
def timm_names(folder: Path, target: Path) -> Iterator[None]:
    """The encoder's tensors as timm stores them: query, key and value fused, no biases for them."""
    tensors = load_file(folder / "model.safetensors")
    top = {new: old for old, new in dinov3_timm._TOP.items()}
    block = {new: old for old, new in dinov3_timm._BLOCK.items()}
    fused: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if name in top:
            fused[top[name]] = value
        elif name.startswith("layer."):
            _, number, rest = name.split(".", 2)
            if rest in block:
                fused[f"blocks.{number}.{block[rest]}"] = value
    for number in range(2):
        parts = [tensors[f"layer.{number}.attention.{k}_proj.weight"] for k in "qkv"]
        fused[f"blocks.{number}.attn.qkv.weight"] = np.concatenate(parts)
    target.mkdir(parents=True)
    save_file(fused, target / "model.safetensors")
    yield


def test_timms_copy_becomes_a_folder_that_transformers_loads(published: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    root = tmp_path / "hub"
    for repo in (MODEL, DECODER):
        (root / repo).parent.mkdir(parents=True, exist_ok=True)
        (root / repo).symlink_to(published / repo)
    with timm_names(published / ENCODER, root / OPEN_ENCODER):
        settings = dataclasses.replace(SETTINGS, image_encoder=OPEN_ENCODER)
        manifest = fetch(settings, tmp_path / "volume", FolderHub(root))
    folder = weights_folder(settings, tmp_path / "volume")
    assert {f.path for f in manifest.files if f.repo == OPEN_ENCODER} == {
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
    }
    check_folder(folder)
    original = AutoModel.from_pretrained(published / ENCODER).eval()
    config = json.loads((folder / "image_encoder" / "config.json").read_text())
    config |= {"num_attention_heads": 2, "patch_size": 128}  # the tiny encoder's heads are not 64 wide
    (folder / "image_encoder" / "config.json").write_text(json.dumps(config))
    converted = AutoModel.from_pretrained(folder / "image_encoder").eval()
    with torch.no_grad():
        for layer in original.state_dict():
            if layer.endswith(("q_proj.bias", "v_proj.bias")):
                original.state_dict()[layer].zero_()
        picture = torch.randn(1, 3, 256, 256)
        expected = original(pixel_values=picture).last_hidden_state
        assert torch.allclose(converted(pixel_values=picture).last_hidden_state, expected, atol=1e-5)
    tensors = load_file(folder / "image_encoder" / "model.safetensors")
    with pytest.raises(ValueError, match="no tensor of timm"):
        dinov3_timm.renamed({"head.weight": tensors["norm.weight"]})
