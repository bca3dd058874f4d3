"""The image pipeline on a tiny checkpoint with random weights: every type, end to end, on the CPU."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trellis2 import pipelines
from trellis2.errors import (
    Cancelled,
    CheckpointError,
    EmptyStructureError,
    InvalidArgumentError,
    InvalidImageError,
    NumericalError,
    UnsupportedPipelineError,
)
from trellis2.models.memory import free_memory
from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.pipelines.image_to_3d import KeptShape
from trellis2.pipelines.memory import (
    LOADED_BYTES,
    STAGED_BYTES,
    TOKEN_BYTES,
    fitting_tokens,
)
from trellis2.pipelines.stages import SamplingRun, stages_from_config
from trellis2.progress import Progress
from trellis2.representations import MeshWithVoxel
from trellis2.samplers.acceleration import Passes
from trellis2.sparse import SparseTensor

from .tiny_checkpoint import sampler

TYPES = {"512": 512, "1024": 1024, "1024_cascade": 1024, "1536_cascade": 1536}


def same(a: MeshWithVoxel, b: MeshWithVoxel) -> bool:
    names = ("vertices", "faces", "coords", "attrs")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("pipeline_type", TYPES)
def test_every_type_runs(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image, pipeline_type: str
) -> None:
    (mesh,), (shape_slat, tex_slat, resolution) = pipeline.run(
        picture, pipeline_type=pipeline_type, return_latent=True
    )
    assert resolution == TYPES[pipeline_type]
    assert mesh.voxel_size == 1 / resolution
    assert len(mesh.faces) > 100
    assert mesh.coords.shape[0] == mesh.attrs.shape[0] > len(shape_slat.coords)
    assert list(mesh.voxel_shape) == [1, 6, *(mesh.coords.amax(0) + 1).tolist()]
    assert mesh.vertices.abs().max() < 0.5 + 1 / resolution
    assert torch.isfinite(mesh.attrs).all()
    assert torch.equal(shape_slat.coords, tex_slat.coords)
    # each voxel's vertex is near it, before the holes' own vertices
    centres = mesh.position
    assert (mesh.vertices[: len(centres)] - centres).abs().max() <= 1.01 / resolution


def test_a_shape_without_a_texture_is_the_same_shape(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    stages: list[str] = []
    (grey,), (shape_slat, tex_slat, resolution) = pipeline.run(
        picture,
        pipeline_type="512",
        texture=False,
        return_latent=True,
        progress=lambda p: stages.append(p.stage),
    )
    (mesh,) = pipeline.run(picture, pipeline_type="512")
    assert torch.equal(grey.vertices, mesh.vertices)
    assert torch.equal(grey.faces, mesh.faces)
    assert tex_slat is None
    assert not {"texture", "decode_texture"} & set(stages)
    assert grey.attrs.unique(dim=0).tolist() == [pytest.approx([0.7, 0.7, 0.7, 0.0, 0.6, 1.0])]
    at_surface = grey.query_attrs(grey.vertices)  # no vertex lies outside the voxels
    assert torch.allclose(at_surface, grey.attrs[:1].expand_as(at_surface))
    assert same(grey, pipeline.decode_latent(shape_slat, None, resolution)[0])


def test_a_seed_gives_one_result(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    (first,) = pipeline.run(picture, pipeline_type="512", seed=3)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's own random numbers are left alone
    torch.randn(5)
    (second,) = pipeline.run(picture, pipeline_type="512", seed=3)
    (other,) = pipeline.run(picture, pipeline_type="512", seed=4)
    assert same(first, second)
    assert not same(first, other)


def test_low_vram_changes_no_number(
    checkpoint: Path, pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    resident = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint, low_vram=False)
    assert (pipeline.low_vram, resident.low_vram) == (True, False)
    (a,) = pipeline.run(picture, pipeline_type="512")
    (b,) = resident.run(picture, pipeline_type="512")
    assert same(a, b)


def test_models_move_at_once_without_low_vram(checkpoint: Path, picture: Image.Image) -> None:
    """The meta device stands in for a GPU: what is moved there can be seen without one."""
    staged = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint).to("meta")
    flow = staged.models["shape_slat_flow_model_512"]
    assert flow.device.type == "cpu"
    assert flow.dtype == torch.bfloat16
    resident = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint, low_vram=False)
    assert resident.models["shape_slat_flow_model_512"].dtype == torch.bfloat16  # until it computes
    resident.run(picture, pipeline_type="512")
    assert resident.models["shape_slat_flow_model_512"].dtype == torch.float32
    resident.to("meta")
    assert {m.device.type for m in resident.models.values()} == {"meta"}
    assert resident.models["shape_slat_flow_model_512"].dtype == torch.bfloat16


def test_switching_low_vram_moves_the_models(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint).to("meta")
    pipeline.low_vram = False
    assert {m.device.type for m in pipeline.models.values()} == {"meta"}
    moved = []
    for part in (*pipeline.models.values(), pipeline.image_cond_model):
        monkeypatch.setattr(part, "to", lambda device, part=part: moved.append((part, str(device))))
    pipeline.low_vram = True
    assert moved == [(part, "cpu") for part in (*pipeline.models.values(), pipeline.image_cond_model)]
    pipeline.low_vram = True
    assert len(moved) == len(pipeline.models) + 1


def test_progress_tells_the_stages_in_order(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    seen: list[Progress] = []
    pipeline.run(picture, pipeline_type="1024_cascade", progress=seen.append)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == [
        "image",
        "condition",
        "sparse_structure",
        "shape",
        "shape_fine",
        "texture",
        "decode_shape",
        "decode_texture",
        "mesh",
    ]
    for stage in stages:
        reports = [p for p in seen if p.stage == stage]
        assert [p.step for p in reports] == list(range(reports[0].steps + 1))


@pytest.mark.parametrize("calls", [0, 3, 6, 9])
def test_cancel_is_heard_everywhere(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image, calls: int
) -> None:
    asked = []

    def cancel() -> bool:
        asked.append(True)
        return len(asked) > calls

    with pytest.raises(Cancelled):
        pipeline.run(picture, pipeline_type="512", cancel=cancel)
    assert len(asked) == calls + 1


def test_samples_share_one_condition(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    meshes = pipeline.run(picture, num_samples=2, pipeline_type="512")
    assert len(meshes) == 2
    assert not same(meshes[0], meshes[1])


def test_variants_are_what_each_seed_makes_alone(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    seen: list[Progress] = []
    options = {"pipeline_type": "512", "progress": seen.append}
    first, second = pipeline.variants(picture, (7, 8), **options)
    assert (first.seed, second.seed) == (7, 8)
    alone = pipeline.run(picture, seed=8, pipeline_type="512")[0]
    torch.testing.assert_close(second.asset.attrs, alone.attrs, atol=2e-3, rtol=0)
    assert not same(first.asset, second.asset)
    assert {p.message for p in seen if p.stage == "texture"} == {"1 of 2", "2 of 2"}
    # the picture is read once, and the structures are sampled together
    assert sum(p.stage == "condition" and p.step == 0 for p in seen) == 1
    assert sum(p.stage == "sparse_structure" and p.step == 0 for p in seen) == 1

    # a kept shape: only its texture is sampled again; a cascade refines it
    kept = second.shape
    plain = KeptShape(SparseTensor(kept.slat.feats.clone(), kept.slat.coords.clone()), kept.resolution)
    (again,) = pipeline.variants(picture, (9,), shape=plain, pipeline_type="512", progress=seen.append)
    assert torch.equal(again.asset.vertices, second.asset.vertices)
    assert not torch.equal(again.asset.attrs, second.asset.attrs)
    del seen[:]
    (fine,) = pipeline.variants(
        picture, (9,), shape=plain, pipeline_type="1024_cascade", progress=seen.append
    )
    assert fine.shape.resolution == 1024
    assert {p.stage for p in seen} & {"sparse_structure", "shape"} == set()
    with pytest.raises(InvalidArgumentError, match="resolution 512"):
        next(pipeline.variants(picture, (9,), shape=plain, pipeline_type="1024"))


def test_a_structure_is_the_mean_of_several_samples(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditioner = pipeline.prepare(picture, pipeline_type="512").conditioner

    def latents(count: int, seeds: Sequence[int]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        run = SamplingRun(generators[0] if len(seeds) == 1 else generators)
        return pipeline.sample_structure_latent(conditioner, count, run)

    three = latents(3, [7])
    stages = dict(pipeline.stages)
    averaging = dataclasses.replace(stages["sparse_structure"], averaged_samples=3)
    monkeypatch.setattr(pipeline, "stages", stages | {"sparse_structure": averaging})
    torch.testing.assert_close(latents(1, [7]), three.mean(0, keepdim=True))
    together = latents(2, [7, 8])
    assert not torch.allclose(together[0], together[1])
    for item, seed in enumerate((7, 8)):
        torch.testing.assert_close(together[item : item + 1], latents(1, [seed]), atol=2e-3, rtol=0)
    config = {"sparse_structure_sampler": {**sampler(), "averaged_samples": 3}}
    assert stages_from_config(config)["sparse_structure"].averaged_samples == 3


def test_latents_decode_from_plain_tensors(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    meshes, (shape_slat, tex_slat, resolution) = pipeline.run(
        picture, num_samples=2, pipeline_type="512", return_latent=True
    )
    rebuilt = [SparseTensor(feats=s.feats.clone(), coords=s.coords.clone()) for s in (shape_slat, tex_slat)]
    again = pipeline.decode_latent(*rebuilt, resolution)
    assert all(same(a, b) for a, b in zip(meshes, again, strict=True))


def test_cascade_lowers_the_resolution(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    seen: list[Progress] = []
    meshes, (slat, _, resolution) = pipeline.run(
        picture, pipeline_type="1536_cascade", max_num_tokens=500, return_latent=True, progress=seen.append
    )
    assert resolution in (1024, 1152, 1280, 1408)
    assert resolution == 1024 or len(slat.coords) < 500
    assert meshes[0].voxel_size == 1 / resolution
    assert any(f"to {resolution}" in p.message for p in seen)


def test_cascade_fits_its_resolution_into_free_memory(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []
    seen: list[Progress] = []

    def run(free: int | None) -> tuple[SparseTensor, int]:
        def probe(device: torch.device) -> int | None:
            asked.append(device)
            return free

        monkeypatch.setattr(pipeline, "memory_probe", probe)
        seen.clear()
        _, (slat, _, resolution) = pipeline.run(
            picture, pipeline_type="1536_cascade", return_latent=True, progress=seen.append
        )
        return slat, resolution

    unlimited, full = run(None)
    assert full == 1536
    beside = STAGED_BYTES if pipeline.low_vram else LOADED_BYTES
    same_slat, same_resolution = run(beside + (len(unlimited.coords) + 1) * TOKEN_BYTES)
    assert same_resolution == 1536
    assert torch.equal(same_slat.feats, unlimited.feats)
    fewer, lower = run(beside + len(unlimited.coords) * TOKEN_BYTES)
    assert 1024 <= lower < 1536
    assert len(fewer.coords) < len(unlimited.coords)
    assert any("free memory allows" in p.message for p in seen)
    assert run(0)[1] == 1024
    assert asked == [pipeline.device] * 4


def test_tokens_that_fit() -> None:
    gigabyte = 10**9
    assert fitting_tokens(49152, None, True) == 49152
    assert fitting_tokens(49152, 70 * gigabyte, False) == 49152
    assert fitting_tokens(49152, 24 * gigabyte, True) == 49152
    assert 26_712 < fitting_tokens(49152, 16 * gigabyte, True) < 49152
    assert fitting_tokens(49152, 2 * gigabyte, True) == 1
    assert fitting_tokens(100, 70 * gigabyte, True) == 100
    assert free_memory(torch.device("cpu")) is None


def test_encoded_images_are_taken(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    (a,) = pipeline.run(stream.getvalue(), pipeline_type="512")
    (b,) = pipeline.run(picture, pipeline_type="512")
    ready = pipeline.preprocess_image(picture)
    (c,) = pipeline.run(ready, pipeline_type="512", preprocess_image=False)
    assert same(a, b)
    assert same(a, c)


def test_pictures_without_a_matte_are_cut_out(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    opaque = Image.new("RGB", picture.size, (235, 235, 235))
    opaque.paste(picture, mask=picture.getchannel("A"))
    ready = pipeline.preprocess_image(opaque)
    expected = pipeline.preprocess_image(picture)
    assert abs(ready.width - expected.width) <= 4


def test_one_flow_may_serve_two_resolutions(checkpoint: Path, tmp_path: Path, picture: Image.Image) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "pipeline.json").read_text())
    models, fine = config["args"]["models"], ("shape_slat_flow_model_1024", "tex_slat_flow_model_1024")
    for name in fine:
        models[name] = models[name.replace("1024", "512")]
    config["args"]["model_args"] = {name: {"position_scale": 0.5} for name in fine}
    config["args"]["pipeline_types"] = ["512", "1024_cascade"]
    config["args"]["shape_slat_sampler"]["fine_params"] = {"steps": 1}
    (folder / "pipeline.json").write_text(json.dumps(config))
    both = Trellis2ImageTo3DPipeline.from_pretrained(folder)
    assert both.available_pipeline_types == ["512", "1024_cascade"]
    scales = {name: both.models[name].config.position_scale for name in models if "slat_flow" in name}
    assert {name: scale for name, scale in scales.items() if scale != 1} == dict.fromkeys(fine, 0.5)
    with pytest.raises(UnsupportedPipelineError, match=r"not made for pipeline type '1536_cascade'.*512"):
        both.run(picture, pipeline_type="1536_cascade")
    steps = []
    for asked in (None, {"steps": 2}):
        passes: dict[str, Passes] = {}
        both.run(
            picture,
            pipeline_type="1024_cascade",
            texture=False,
            shape_slat_sampler_params=asked,
            passes=passes,
        )
        steps.append([passes[stage].conditional for stage in ("shape", "shape_fine")])
    assert steps[0][1] == 1 < steps[0][0], "the second pass has a setting of its own"
    assert steps[1] == [2, 2], "what is asked holds for both"
    assert both.sampler_settings()["shape_fine"]["steps"] == 1
    assert "shape_fine" not in both.sampler_settings(shape_slat_sampler_params={"steps": 2})


def test_missing_models_are_named(checkpoint: Path, picture: Image.Image) -> None:
    skipped = ("shape_slat_flow_model_1024", "tex_slat_flow_model_1024", "rembg_model")
    small = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint, skip=skipped)
    assert small.available_pipeline_types == ["512"]
    assert small.rembg_model is None
    with pytest.raises(UnsupportedPipelineError, match=r"tex_slat_flow_model_1024.*available: 512"):
        small.run(picture)
    with pytest.raises(UnsupportedPipelineError, match="2048"):
        small.run(picture, pipeline_type="2048")
    with pytest.raises(ValueError, match="none"):
        Trellis2ImageTo3DPipeline().run(picture)
    with pytest.raises(InvalidArgumentError, match="background remover"):
        small.run(picture.convert("RGB"), pipeline_type="512")


def test_settings_are_those_of_the_config_unless_asked_otherwise(pipeline: Trellis2ImageTo3DPipeline) -> None:
    settings = pipeline.sampler_settings(shape_slat_sampler_params={"steps": 3})
    defaults = {name: stage.defaults for name, stage in pipeline.stages.items()}
    assert settings["sparse_structure"] == defaults["sparse_structure"]
    assert settings["shape_slat"] == {**defaults["shape_slat"], "steps": 3}
    assert settings["tex_slat"] == defaults["tex_slat"] != {}


def test_bad_input_is_a_typed_error(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    run = pipeline.run
    with pytest.raises(InvalidImageError, match="transparent"):
        run(Image.new("RGBA", (64, 64)), pipeline_type="512")
    with pytest.raises(InvalidImageError, match="1x1"):
        run(Image.new("RGB", (1, 1)), pipeline_type="512")
    with pytest.raises(InvalidImageError):
        run(b"no picture", pipeline_type="512", preprocess_image=False)
    with pytest.raises(InvalidArgumentError, match="num_samples"):
        run(picture, num_samples=0, pipeline_type="512")
    with pytest.raises(InvalidArgumentError, match="stpes"):
        run(picture, pipeline_type="512", tex_slat_sampler_params={"stpes": 3})
    for steps in (0, -1):
        with pytest.raises(InvalidArgumentError, match="steps"):
            run(picture, pipeline_type="512", sparse_structure_sampler_params={"steps": steps})
    with pytest.raises(InvalidArgumentError, match="max_num_tokens"):
        run(picture, pipeline_type="1024_cascade", max_num_tokens=0)


def test_broken_latents_are_typed_errors(pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    _, (shape_slat, tex_slat, resolution) = pipeline.run(picture, pipeline_type="512", return_latent=True)
    broken = tex_slat.feats.clone()
    broken[0, 0] = math.nan
    with pytest.raises(NumericalError, match="texture latent"):
        pipeline.decode_latent(shape_slat, tex_slat.replace(broken), resolution)
    shorter = SparseTensor(feats=tex_slat.feats[1:], coords=tex_slat.coords[1:])
    with pytest.raises(InvalidArgumentError, match="one run"):
        pipeline.decode_latent(shape_slat, shorter, resolution)


@pytest.mark.parametrize("stage", ["shape", "tex"])
def test_a_flow_that_breaks_is_named(checkpoint: Path, picture: Image.Image, stage: str) -> None:
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint)
    flow: Any = pipeline.models[f"{stage}_slat_flow_model_512"]
    with torch.no_grad():
        flow.out_layer.bias.fill_(math.nan)
    with pytest.raises(NumericalError, match={"shape": "shape latent", "tex": "texture latent"}[stage]):
        pipeline.run(picture, pipeline_type="512")


def test_empty_structure_is_a_typed_error(checkpoint: Path, picture: Image.Image) -> None:
    pipeline = Trellis2ImageTo3DPipeline.from_pretrained(checkpoint)
    decoder: Any = pipeline.models["sparse_structure_decoder"]
    with torch.no_grad():
        decoder.out_layer[2].bias.fill_(-1e3)
    with pytest.raises(EmptyStructureError, match="1 of 1"):
        pipeline.run(picture, pipeline_type="512")


def test_models_of_other_folders_and_overrides(checkpoint: Path, picture: Image.Image) -> None:
    config = json.loads((checkpoint / "pipeline.json").read_text())
    other = config["args"]["models"]["sparse_structure_decoder"]
    assert not other.startswith(str(checkpoint))
    loaded = pipelines.from_pretrained(str(checkpoint), skip=("rembg_model",))
    assert isinstance(loaded, Trellis2ImageTo3DPipeline)
    assert loaded._pretrained_args == config["args"]
    assert loaded.default_pipeline_type == "1024_cascade"
    copied = Trellis2ImageTo3DPipeline.from_pretrained(
        checkpoint,
        model_paths={"sparse_structure_decoder": other},
        image_cond_model=str(checkpoint / "ckpts" / "dinov3"),
    )
    assert torch.equal(copied.get_cond([picture], 512).cond, loaded.get_cond([picture], 512).cond)


def test_damaged_folders_are_typed_errors(checkpoint: Path, tmp_path: Path) -> None:
    load = Trellis2ImageTo3DPipeline.from_pretrained
    with pytest.raises(CheckpointError, match=r"pipeline\.json"):
        load(tmp_path)
    (tmp_path / "pipeline.json").write_text("{")
    with pytest.raises(CheckpointError, match="no pipeline config"):
        load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    weights = copy / "ckpts" / "shape_slat_decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="shape_slat_decoder"):
        load(copy)
    weights.unlink()
    with pytest.raises(CheckpointError, match="shape_slat_decoder"):
        load(copy)
    with pytest.raises(CheckpointError, match="no such model: nonsense"):
        load(checkpoint, model_paths={"nonsense": "x"})


def test_fast_runs_spare_a_third_of_the_passes(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    steps: dict[str, Any] = {
        f"{name}_sampler_params": {"steps": 12} for name in ("sparse_structure", "shape_slat", "tex_slat")
    }
    spent: dict[str, dict[str, Passes]] = {"exact": {}, "fast": {}}
    for quality, passes in spent.items():
        pipeline.run(picture, pipeline_type="512", quality=quality, passes=passes, **steps)
    assert set(spent["fast"]) == set(spent["exact"]) == {"sparse_structure", "shape", "texture"}
    for stage, passes in spent["fast"].items():
        exact = spent["exact"][stage]
        assert (exact.conditional, exact.forecast) == (12, 0)
        assert (passes.conditional, passes.forecast) == (8, 4)
        assert passes.null <= exact.null
    with pytest.raises(InvalidArgumentError, match="quality 'best'"):
        pipeline.run(picture, pipeline_type="512", quality="best")
