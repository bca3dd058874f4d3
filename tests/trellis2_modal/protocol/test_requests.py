from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from trellis2_modal.protocol.controls import controls
from trellis2_modal.protocol.errors import ERRORS, InvalidImageError, ServiceError, error_from_problem
from trellis2_modal.protocol.presets import PRESETS, PresetName
from trellis2_modal.protocol.requests import (
    ExtractRequest,
    ExtractSettings,
    GenerateRequest,
    GenerateSettings,
    Submission,
    TextureSettings,
    default_pipeline_type,
)


def test_defaults_are_those_of_the_published_model() -> None:
    settings = GenerateSettings()
    assert settings.seed == 42
    given = {
        prefix: tuple(
            getattr(settings, f"{prefix}_{field}")
            for field in ("sampling_steps", "guidance_strength", "guidance_rescale", "rescale_t")
        )
        for prefix in ("ss", "shape_slat", "tex_slat")
    }
    assert given == {
        "ss": (12, 7.5, 0.7, 5.0),
        "shape_slat": (12, 7.5, 0.5, 3.0),
        "tex_slat": (12, 1.0, 0.0, 3.0),
    }
    extract = ExtractSettings()
    assert (extract.decimation_target, extract.texture_size) == (500_000, 2048)
    assert (extract.remesh, extract.remesh_band, extract.remesh_project) == ("auto", 1.0, 0.0)


def test_sampler_fields_that_are_left_out_leave_the_choice_to_the_weights() -> None:
    untouched: dict[str, dict[str, float]] = {
        "sparse_structure_sampler_params": {},
        "shape_slat_sampler_params": {},
        "tex_slat_sampler_params": {},
    }
    assert GenerateSettings().sampler_params() == untouched
    asked = GenerateSettings(ss_sampling_steps=5, tex_slat_guidance_strength=2.0, shape_slat_rescale_t=3.0)
    assert asked.sampler_params() == {
        "sparse_structure_sampler_params": {"steps": 5},
        "shape_slat_sampler_params": {"rescale_t": 3.0},
        "tex_slat_sampler_params": {"guidance_strength": 2.0},
    }


def test_a_value_that_is_set_to_the_default_stays_set() -> None:
    """Through every seam: the request, the stored job, the worker."""
    request = GenerateRequest.model_validate({"image": "x", "ss_guidance_strength": 7.5})
    stored = json.loads(json.dumps(request.settings().given()))
    assert stored["ss_guidance_strength"] == 7.5
    assert "ss_rescale_t" not in stored
    assert stored["seed"] == 42
    read = GenerateSettings.model_validate(stored)
    assert read.sampler_params()["sparse_structure_sampler_params"] == {"guidance_strength": 7.5}


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="colour"):
        GenerateRequest.model_validate({"image": "x", "colour": 1})


@pytest.mark.parametrize("bad", [{"seed": -1}, {"ss_sampling_steps": 0}, {"ss_rescale_t": float("nan")}])
def test_values_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerateSettings.model_validate(bad)


def test_every_default_lies_within_its_own_bounds() -> None:
    for model in (GenerateSettings, ExtractSettings):
        model.model_validate(model().model_dump())
        for control in controls(model):
            assert control.title
            assert control.help
            if control.kind in ("int", "float"):
                assert control.minimum is not None
                assert control.maximum is not None
                assert control.default is None or control.minimum <= control.default <= control.maximum
                assert control.step


def test_every_setting_but_what_inputs_bring_has_a_control() -> None:
    for model in (GenerateSettings, ExtractSettings, TextureSettings):
        names = [name for name in model.model_fields if name not in ("views", "export", "variant", "name")]
        assert [c.name for c in controls(model)] == names


@pytest.mark.parametrize(
    ("sent", "value"), [("auto", "auto"), (True, True), (False, False), ("true", True), ("false", False)]
)
def test_remesh_is_auto_or_a_boolean(sent: object, value: object) -> None:
    """Forms send booleans as words."""
    assert ExtractSettings.model_validate({"remesh": sent}).remesh is value
    with pytest.raises(ValidationError):
        ExtractSettings.model_validate({"remesh": f"{sent}s"})


def test_presets_leave_remeshing_to_the_surface() -> None:
    assert {ExtractSettings(simplify=name).resolved().remesh for name in PRESETS} == {"auto"}


def test_a_preset_gives_way_to_fields_that_were_given() -> None:
    request = ExtractRequest(job="job_1", simplify="mobile", texture_size=512)
    resolved = request.settings().resolved()
    assert resolved.texture_size == 512
    assert resolved.decimation_target == PRESETS["mobile"].settings["decimation_target"]
    assert resolved.resolved() == resolved


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_sum_of_its_fields(name: PresetName) -> None:
    by_name, by_hand = ExtractSettings(simplify=name).resolved(), ExtractSettings(**PRESETS[name].settings)
    assert by_name.model_dump(exclude={"simplify"}) == by_hand.model_dump(exclude={"simplify"})


def test_every_field_reaches_the_exporter() -> None:
    postprocess = pytest.importorskip("o_voxel.postprocess")
    exporter = pytest.importorskip("trellis2_modal.service.exporter")
    settings = ExtractSettings(outer_shell=True)
    reached = exporter.arguments(settings, postprocess.to_glb).keys()
    reached |= exporter.arguments(settings, postprocess.GlbAsset.export).keys()
    others = {
        "simplify",
        "variant",
        "format",
        "wall_mm",
    }  # file_type; its wall in sizes
    assert reached == ExtractSettings.model_fields.keys() - others | {"wall"}


@pytest.mark.parametrize("sources", [{}, {"job": "a", "state": "b"}])
def test_an_extraction_has_one_source(sources: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        ExtractRequest.model_validate(sources)


def test_submissions_are_told_apart_by_kind() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(Submission)
    assert isinstance(adapter.validate_python({"kind": "generate", "image": "x"}), GenerateRequest)
    assert isinstance(adapter.validate_python({"kind": "extract", "job": "x"}), ExtractRequest)
    with pytest.raises(ValidationError):
        adapter.validate_python({"image": "x"})


def test_default_pipeline_type_is_one_that_is_offered() -> None:
    assert default_pipeline_type(["512"]) == "512"
    assert default_pipeline_type(["512", "1024_cascade", "1536_cascade"]) == "1024_cascade"
    with pytest.raises(ValueError, match="no pipeline type"):
        default_pipeline_type([])


def test_every_error_survives_the_network() -> None:
    assert len(ERRORS) == len({cls.slug for cls in ERRORS.values()})
    for slug, cls in ERRORS.items():
        sent = cls("do this", retry_after=3, hints={"suggested": {"seed": 1}})
        got = error_from_problem(sent.problem("r1"))
        assert type(got) is cls
        assert (got.slug, got.detail, got.retry_after, got.request_id) == (slug, "do this", 3, "r1")
        assert got.hints == {"suggested": {"seed": 1}}


@pytest.mark.parametrize("document", [{}, {"type": 3, "status": 400}, {"errors": "x"}, {"errors": [1]}])
def test_a_strange_problem_document_is_still_an_error(document: dict[str, object]) -> None:
    assert isinstance(error_from_problem(document), ServiceError)


def test_an_unknown_slug_falls_back_on_the_status() -> None:
    assert error_from_problem({"type": "new-thing", "status": 404}).status == 404
    assert issubclass(InvalidImageError, ServiceError)


def test_the_protocol_stays_light() -> None:
    code = (
        "import sys, trellis2_modal, trellis2_modal.protocol;"
        "heavy = {'torch', 'pydantic', 'numpy', 'lz4'} & set(sys.modules); assert not heavy, heavy;"
        "import trellis2_modal.protocol.requests, trellis2_modal.protocol.replies;"
        "import trellis2_modal.client.compression;"
        "heavy = {'torch', 'trellis2', 'o_voxel', 'fastapi'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
