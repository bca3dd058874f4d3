"""Pixel-aligned weights through the whole pipeline: one picture, several, and what is refused."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trellis2.conditioning.camera import named_camera
from trellis2.conditioning.matting.matte import Notice
from trellis2.errors import (
    BackendError,
    Cancelled,
    CheckpointError,
    InvalidArgumentError,
    InvalidCameraError,
    InvalidImageError,
    UnsupportedPipelineError,
)
from trellis2.pipelines import Trellis2ImageTo3DPipeline, from_pretrained
from trellis2.pipelines.pixel_conditioner import PixelConditioner, PixelStage
from trellis2.progress import Progress

from .tiny_checkpoint import COND

# The published table at sizes that the test's DINOv3 (patches of 16 pixels) and a busy CPU like.
STAGES = {
    "sparse_structure": PixelStage(144),
    "shape": PixelStage(144, 144),
    "shape_fine": PixelStage(288, 144, ahead=288),
    "texture": PixelStage(288, 288),
}
FAST = {"steps": 1}
SAMPLERS = dict.fromkeys(
    ("sparse_structure_sampler_params", "shape_slat_sampler_params", "tex_slat_sampler_params"), FAST
)


def load(folder: Path, file: str) -> Trellis2ImageTo3DPipeline:
    pipeline = from_pretrained(
        str(folder), config_file=file, image_cond_model=str(folder / "ckpts" / "dinov3-16")
    )
    assert type(pipeline) is Trellis2ImageTo3DPipeline
    pipeline.pixel_stages = STAGES
    return pipeline


@pytest.fixture(scope="module")
def single(pixel_checkpoint: Path) -> Trellis2ImageTo3DPipeline:
    return load(pixel_checkpoint, "pipeline.json")


@pytest.fixture(scope="module")
def multi(pixel_checkpoint: Path) -> Trellis2ImageTo3DPipeline:
    return load(pixel_checkpoint, "pipeline_mv.json")


def run(pipeline: Trellis2ImageTo3DPipeline, image: Any, **options: Any) -> Any:
    reports: list[Progress] = []
    out = pipeline.run(image, progress=reports.append, **{**SAMPLERS, **options})
    return out[0], [r.message for r in reports if r.message]


def turned(picture: Image.Image, hue: int) -> Image.Image:
    pixels = np.asarray(picture).copy()
    pixels[..., :3] = np.roll(pixels[..., :3], hue, axis=2)
    return Image.fromarray(pixels)


def test_one_picture(single: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    assert single.available_pipeline_types == ["1024_cascade", "1536_cascade"]
    reports: list[Progress] = []
    (asset,), latents = single.run(picture, return_latent=True, progress=reports.append, **SAMPLERS)
    assert len(asset.vertices)
    assert not [r for r in reports if r.message]
    # A dual vertex lies at most half a cell outside its voxel: vertices and voxels were turned alike.
    low = asset.coords * asset.voxel_size - 0.5
    offset = (asset.vertices[: len(low)] - low) / asset.voxel_size
    assert float(offset.min()) >= -0.51
    assert float(offset.max()) <= 1.51
    single.half_turn = True
    try:
        (back,) = single.decode_latent(*latents)
    finally:
        single.half_turn = False
    torch.testing.assert_close(back.vertices, asset.vertices * torch.tensor([-1.0, -1, 1]))
    size = round(1 / asset.voxel_size)
    x, y, z = asset.coords.unbind(1)
    assert torch.equal(back.coords, torch.stack([size - 1 - x, size - 1 - y, z], dim=1).to(back.coords))


def test_another_lens_is_another_object(single: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    views = [single.prepare_views([picture], fov=fov) for fov in (None, 20.0)]
    far, near = (v[0].camera for v in views)
    assert far is not None
    assert near is not None
    assert math.isclose(far.distance, 1 / (2 * math.tan(math.radians(49.13) / 2)), rel_tol=1e-3)
    assert near.distance > far.distance
    conditions = [single.view_conditioner(v, (512,)).condition("sparse_structure", None, 512) for v in views]
    a, b = (c.cond.features for c in conditions)
    assert a.shape == (1, 16**3, COND)
    assert not torch.allclose(a, b, atol=1e-3)


def test_the_textures_features_are_read_with_the_fine_shapes(
    single: Trellis2ImageTo3DPipeline, picture: Image.Image
) -> None:
    conditioner = single.view_conditioner(single.prepare_views([picture]), (512,))
    assert isinstance(conditioner, PixelConditioner)
    coords = torch.tensor([[0, 10, 20, 30], [0, 30, 31, 33], [0, 63, 0, 5]])
    encoded = 0

    class Counted:
        def encode(self, *args: Any) -> Any:
            nonlocal encoded
            encoded += 1
            return single.feature_upsampler.encode(*args)  # type: ignore[union-attr]

        def guide(self, *args: Any) -> Any:
            return single.feature_upsampler.guide(*args)  # type: ignore[union-attr]

    conditioner.upsampler = Counted()  # type: ignore[assignment]
    conditioner.condition("shape_fine", coords, 1024)
    ahead = conditioner.condition("texture", coords, 1024).cond.features
    assert encoded == 1
    assert ahead.shape == (3, 2 * COND)
    again = conditioner.condition("texture", coords, 1024).cond.features
    assert encoded == 2
    torch.testing.assert_close(again, ahead)


def test_named_views(multi: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    pictures = [turned(picture, hue) for hue in (1, 0, 2)]
    asset, messages = run(multi, pictures, cameras=["right", "front", "back"])
    assert len(asset.vertices)
    assert not messages
    views = multi.prepare_views(pictures, ["right", "front", "back"])
    assert views[0].picture.tobytes() == multi.prepare_views([pictures[1]], ["front"])[0].picture.tobytes()
    torch.testing.assert_close(views[0].camera.camera_to_world, named_camera("front").camera_to_world)  # type: ignore[union-attr]


def test_posed_views_are_taken_as_they_are(multi: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    matrices = [named_camera(n).camera_to_world.tolist() for n in ("front", "left")]
    views = multi.prepare_views([picture, picture], matrices, fov=20.0)
    assert [v.picture.size for v in views] == [picture.size] * 2
    assert views[0].tensor(32).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("weights", "count", "says"),
    [("multi", 1, "single-view weights do better"), ("single", 2, "multi-view weights do better")],
)
def test_weights_and_number_of_views_that_do_not_fit_are_said(
    request: pytest.FixtureRequest, picture: Image.Image, weights: str, count: int, says: str
) -> None:
    reports: list[Progress] = []
    with pytest.raises(Cancelled):
        request.getfixturevalue(weights).run(
            [picture, turned(picture, 1)][:count],
            cameras=["front", "back"][:count],
            progress=reports.append,
            cancel=lambda: any(says in r.message for r in reports),
        )


@pytest.mark.parametrize(
    ("count", "cameras", "fov", "error", "says"),
    [
        (9, ["front"] * 9, None, InvalidCameraError, "9 views"),
        (2, None, None, InvalidCameraError, "need 2 cameras, none given"),
        (2, ["front"], None, InvalidCameraError, "need 2 cameras, 1 given"),
        (2, ["front", "top"], None, InvalidCameraError, "top"),
        (2, ["front", "front"], None, InvalidCameraError, "both from front"),
        (2, ["front", torch.eye(4).tolist()], None, InvalidCameraError, "not some of each"),
        (1, None, 0.0, InvalidCameraError, "between 0 and 180"),
        (1, None, 180.0, InvalidCameraError, "between 0 and 180"),
        (1, None, 100.0, InvalidCameraError, "below 90 degrees"),
        (1, [torch.zeros(4, 4).tolist()], None, InvalidCameraError, "last row"),
    ],
)
def test_views_that_cannot_be(
    multi: Trellis2ImageTo3DPipeline,
    picture: Image.Image,
    count: int,
    cameras: Any,
    fov: float | None,
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        multi.prepare_views([picture] * count, cameras, fov)


def test_posed_views_of_different_sizes(multi: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    matrices = [named_camera(n).camera_to_world.tolist() for n in ("front", "left")]
    for other in (picture.resize((64, 64)), picture.crop((0, 0, 96, 64))):
        with pytest.raises(InvalidImageError, match="square and of one size"):
            multi.prepare_views([picture, other], matrices)


def test_types_without_weights(single: Trellis2ImageTo3DPipeline, picture: Image.Image) -> None:
    with pytest.raises(UnsupportedPipelineError, match="1024_cascade"):
        single.run(picture, pipeline_type="1024")


def test_naf_must_be_there(pixel_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text((pixel_checkpoint / "pipeline.json").read_text())
    with pytest.raises(CheckpointError, match="valeoai/NAF"):
        from_pretrained(str(tmp_path))


@pytest.mark.parametrize("mode", ["cycle", "average"])
def test_several_pictures_for_weights_that_know_one(
    pipeline: Trellis2ImageTo3DPipeline, picture: Image.Image, mode: str
) -> None:
    pair = [picture, turned(picture, 1)]
    options = {"pipeline_type": "512", "view_mode": mode, "cameras": ["front", "back"]}
    asset, said = run(pipeline, pair, **options)
    assert len(asset.vertices)
    assert ["approximation" in m for m in said] == [True]
    with pytest.raises(InvalidArgumentError, match="know no cameras"):
        pipeline.prepare_views(pair, fov=30.0)
    with pytest.raises(InvalidCameraError, match="top"):
        pipeline.prepare_views(pair, ["front", "top"])
    with pytest.raises(InvalidCameraError, match="2 views and 1 cameras"):
        pipeline.prepare_views(pair, ["front"])
    with pytest.raises(InvalidArgumentError, match="view mode"):
        run(pipeline, pair, **{**options, "view_mode": "all"})


def test_the_lens_is_estimated_where_moge_is_installed(
    single: Trellis2ImageTo3DPipeline, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "moge", None)
    with pytest.raises(BackendError, match=r"pip install .*or give fov"):
        single.prepare_views([picture], fov="estimate")

    class MoGeModel(torch.nn.Module):
        @classmethod
        def from_pretrained(cls, name: str) -> MoGeModel:
            assert name == "Ruicheng/moge-2-vitl"
            return cls()

        def infer(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            assert image.shape[0] == 3
            assert 0 <= float(image.min()) < float(image.max()) <= 1
            return {"intrinsics": torch.diag(torch.tensor([1.0, 1.0, 1.0]))}

    package, version = ModuleType("moge.model"), ModuleType("moge.model.v2")
    version.MoGeModel = MoGeModel  # type: ignore[attr-defined]
    for name, module in (("moge", package), ("moge.model", package), ("moge.model.v2", version)):
        monkeypatch.setitem(sys.modules, name, module)
    told: list[Notice] = []
    try:
        (view,) = single.prepare_views([picture], fov="estimate", notice=told.append)
        with pytest.raises(InvalidArgumentError, match="one picture alone"):
            single.prepare_views([picture] * 2, ["front", "back"], fov="estimate")
    finally:
        single.lens_estimator = None
    assert view.camera is not None
    assert math.isclose(view.camera.fov, 2 * math.atan(0.5), rel_tol=1e-6)
    assert [notice.message for notice in told] == ["the field of view was estimated as 53.1 degrees"]
