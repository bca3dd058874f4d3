"""What evaluation says of exported assets, on shapes that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from trellis2_training import world
from trellis2_training.data import render as rd
from trellis2_training.data.voxelize import voxelize
from trellis2_training.evaluation import evaluate as ev
from trellis2_training.evaluation import exported
from trellis2_training.evaluation import measures as ms

from trellis2.conditioning.upright import UprightCamera
from trellis2.pipelines.conditioner import ImageConditioner
from trellis2.pipelines.upright_conditioner import UprightConditioner
from trellis2.representations import PBR_ATTR_LAYOUT
from trellis2_modal.protocol.presets import PRESETS


def test_the_budget_is_that_of_the_web() -> None:
    preset = PRESETS["web"].settings
    assert {k: preset[k] for k in ("decimation_target", "texture_size", "normal_map")} == {
        k: exported.WEB[k] for k in ("decimation_target", "texture_size", "normal_map")
    }


def test_the_truth_scores_high_and_something_else_does_not() -> None:
    table = world.patterned(world.table_bank(3, 1), torch.Generator().manual_seed(2), 1.0)[0]
    truth = voxelize(table, 64)
    vertices, faces = ev.true_mesh(truth)
    asset = SimpleNamespace(
        vertices=vertices,
        faces=faces,
        coords=truth.coords,
        attrs=truth.attributes,
        voxel_size=1 / 64,
        layout=PBR_ATTR_LAYOUT,
    )
    view, picture = ev.held_out_picture(table, 7, 96)
    generator = torch.Generator().manual_seed(0)
    target = ms.surface_points(vertices, faces, 20_000, generator)
    angles = rd.upright_camera(view)
    turned = rd.camera(angles.yaw + 0.3, angles.pitch, angles.fov)
    scores = exported.exported_scores(asset, view, picture, target, generator, view)
    assert scores["export_f_002"] > 0.95
    assert scores["silhouette_iou"] > 0.95
    assert scores["seen_base_color_mae"] < 0.06
    assert scores["correlation"] > 0.9
    assert scores["ssim"] > 0.8
    assert scores["read_correlation"] > 0.9
    wrong = exported.exported_scores(asset, view, picture, target, generator, turned)
    assert wrong["correlation"] == scores["correlation"]
    assert wrong["read_correlation"] < scores["read_correlation"] - 0.1
    assert scores["closed"] == 1
    assert scores["one_body"] == 1, "it has charts, and they are of one body"
    half = asset.vertices * 0.3
    apart = SimpleNamespace(**{**vars(asset), "vertices": torch.cat([half - 0.3, half + 0.3])})
    apart.faces = torch.cat([faces, faces + len(vertices)])
    assert exported.exported_scores(apart, view, picture, target, generator)["one_body"] == 0
    mask, true = picture.mask[0, 0] > 0.5, picture.attributes[0, :3]
    plain = exported.picture_scores(true.mean((1, 2), keepdim=True).expand_as(true), mask, true, mask)
    assert plain["silhouette_iou"] == 1
    assert abs(plain["correlation"]) < 1e-3
    assert plain["seen_base_color_mae"] > 0.1
    assert plain["ssim"] < 0.6


def test_a_crop_is_the_square_around_the_mask() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:12, 20:24] = True
    colours = torch.zeros(3, 32, 32)
    colours[0, 4:8], colours[1, 8:12] = 1, 1
    made, cover = exported.boxed(colours, mask, 16)
    assert cover[:, 4:12].all()
    assert not cover[:, :4].any()
    assert not cover[:, 12:].any()
    torch.testing.assert_close(made[:2, 2, 8], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(made[:2, 13, 8], torch.tensor([0.0, 1.0]))
    assert not exported.boxed(colours, torch.zeros_like(mask), 16)[1].any()


def test_the_nearest_point_of_a_pixel_is_drawn() -> None:
    view = rd.camera(torch.zeros(1), torch.zeros(1), torch.full((1,), 0.5))
    generator = torch.Generator().manual_seed(0)
    front = torch.rand(40_000, 3, generator=generator) * torch.tensor([0.4, 0, 0.4]) - 0.2
    back = front + torch.tensor([0, 0.3, 0])
    points = torch.cat([front, back])[torch.randperm(80_000, generator=generator)]
    red = (points[:, 1] < 0).float()
    drawn = ev.splat(view, points, torch.stack([red, 0 * red, 1 - red], 1), 32)
    assert float(drawn[14:18, 14:18, 0].min()) > 0.3
    assert float(drawn[14:18, 14:18, 2].max()) == 0


def test_ssim_is_one_for_the_same_and_falls_with_noise() -> None:
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(exported.ssim(picture, picture), torch.ones(40, 40))
    noisy = (picture + 0.3 * torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert float(exported.ssim(picture, noisy).mean()) < 0.8
    # Two constant pictures: the luminance term alone, (2ab + c) / (a^2 + b^2 + c), away from the border.
    a, b = torch.full((1, 30, 30), 0.5), torch.full((1, 30, 30), 0.25)
    expected = (2 * 0.125 + 1e-4) / (0.25 + 0.0625 + 1e-4)
    assert float(exported.ssim(a, b)[15, 15]) == pytest.approx(expected, rel=1e-4)


def test_what_has_no_front_is_seen_from_where_the_pipeline_takes_it_to_be() -> None:
    angles = torch.tensor([[0.9, 0.3, 0.6]])
    view = rd.camera(*angles.unbind(1))
    plain = ImageConditioner({})
    own = UprightCamera(*torch.tensor([[-0.2, 0.5, 0.4]]).unbind(1))
    aligned = UprightConditioner(plain, torch.zeros(1, 1, 4, 4), own, frozenset())
    picture = Image.new("RGBA", (8, 8))

    def pipeline(conditioner: Any) -> Any:
        return SimpleNamespace(prepare=lambda _: SimpleNamespace(conditioner=conditioner))

    cpu = torch.device("cpu")
    assert ev.read_view(pipeline(plain), picture, cpu) is None
    assert ev.as_seen(None, view) is view
    read = ev.read_view(pipeline(aligned), picture, cpu)
    assert read is not None
    assert float(rd.upright_camera(read).fov) == pytest.approx(0.4, abs=1e-5)
    seen = rd.upright_camera(ev.as_seen(read, view))
    assert float(seen.yaw) == pytest.approx(-0.2, abs=1e-5)
    assert float(seen.pitch) == pytest.approx(0.3, abs=1e-5), "which a picture tells of any object"
