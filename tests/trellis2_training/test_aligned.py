"""The pixel-aligned flows: where voxels look, what training starts from, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trellis2_training import world
from trellis2_training.checkpoint import load_weights, save_weights
from trellis2_training.config import TINY, ModelConfig
from trellis2_training.data import render as rd
from trellis2_training.data.batches import TableBank
from trellis2_training.data.voxelize import voxelize
from trellis2_training.evaluation import evaluate as ev
from trellis2_training.evaluation.texture import colour_scores, held_out_case, rows_in_view, visible_rows
from trellis2_training.runtime import Runtime
from trellis2_training.stages.aligned import BOTH, AlignedFlows
from trellis2_training.stages.latents import LatentSet
from trellis2_training.stages.pictures import Views, camera_terms, see
from trellis2_training.stages.structure import AlignedStructureFlow
from trellis2_training.world import table as tb
from trellis2_training.world.table import Pattern

from trellis2.conditioning.pixel_map import CameraHead, cell_geometry, cell_reading, framing_targets
from trellis2.conditioning.upright import (
    UprightCamera,
    crop_window,
    project_upright,
    sample_crop,
    voxel_geometry,
    voxel_points,
)
from trellis2.nn.tokens import PixelTokens
from trellis2.sparse import SparseTensor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tables() -> torch.Tensor:
    return world.table_bank(0, 3)


def drawn(tables: torch.Tensor, size: int = 64) -> tuple[rd.View, rd.Picture]:
    """Tight crops without jitter."""
    generator = torch.Generator().manual_seed(3)
    view = rd.random_views(len(tables), generator)
    lights = rd.random_lights(view, generator)
    view = rd.crop_view(tables, view, 96)
    return view, rd.render(tables, view, lights, size, shadows=False)


def trained(stage: Any, steps: int) -> list[dict[str, float]]:
    """The terms of so many steps, in which every parameter is told something."""
    parameters = {f"{n}.{k}": p for n, net in stage.networks.items() for k, p in net.named_parameters()}
    optimizer = torch.optim.Adam(parameters.values(), lr=3e-3)
    sums = []
    for _ in range(steps):
        terms = stage.losses(0.0)
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums.append({k: float(v.detach()) for k, v in terms.items()})
    silent = [n for n, p in parameters.items() if p.grad is None or not float(p.grad.abs().max()) > 0]
    assert not silent
    return sums


def test_voxels_find_their_pixels_by_angles_alone(tables: torch.Tensor) -> None:
    view, picture = drawn(tables)
    for i, table in enumerate(tables):
        camera = UprightCamera(*(a[i : i + 1] for a in vars(rd.upright_camera(view)).values()))
        coords = torch.unique(voxelize(table, 128).coords // 4, dim=0)[None]
        seen = picture.position[i][:, picture.mask[i, 0] > 0.5].T
        # The window comes from the voxels: what they show of the picture is the surface that they hold.
        places, geometry = voxel_geometry(coords, 32, camera)
        cells = ((seen + 0.5) * 32).long().clamp(0, 31)
        rows = (coords[0, None] == cells[:40, None]).all(2).float()
        found = rows.argmax(1)[rows.amax(1) > 0]
        maps = torch.cat([picture.position[i], picture.mask[i]])[None]
        read = sample_crop(maps, places)[0, found]
        whole = read[:, 3] > 0.99
        centres = (coords[0, found] + 0.5) / 32 - 0.5
        assert int(whole.sum()) >= 10
        gap = (read[whole, :3] - centres[whole]).norm(dim=1)
        assert float(gap.median()) < 1.2 / 32, "within about a voxel"
        # Seen voxels are near the first surface, and some are not seen.
        assert float(geometry[0, found, 6].median()) < 0.4
        assert float(geometry[0, :, 6].max()) > 0.9


def test_the_window_is_that_of_the_crop(tables: torch.Tensor) -> None:
    view, _ = drawn(tables)
    for i, table in enumerate(tables):
        camera = UprightCamera(*(a[i : i + 1] for a in vars(rd.upright_camera(view)).values()))
        coords = torch.unique(voxelize(table, 128).coords // 4, dim=0)[None]
        places, _ = project_upright(voxel_points(coords, 32), camera)
        centre, half = crop_window(places)
        assert float(half) == pytest.approx(float(view.half[i]), rel=0.06)
        assert float((centre - view.centre[i]).abs().max()) < 0.03


@pytest.mark.parametrize("name", ["tex_flow", "shape_flow"])
def test_training_starts_from_what_the_plain_flow_makes(name: str, tmp_path: Path) -> None:
    config = TINY.models[name]
    plain_args = {k: v for k, v in config.args.items() if k not in ("image_attn_mode", "proj_in_channels")}
    plain = ModelConfig(config.name, plain_args).build()
    torch.nn.init.normal_(plain.out_layer.weight)
    save_weights(tmp_path, name, plain)
    aligned = config.build()
    assert load_weights(tmp_path, name, aligned)
    coords = torch.tensor([[0, 1, 2, 3], [0, 2, 2, 3], [0, 0, 1, 3]], dtype=torch.int32)
    x = SparseTensor(torch.randn(3, config.args["in_channels"]), coords, 1)
    tokens, t = torch.randn(1, 17, TINY.cond), torch.tensor([700.0])
    features = torch.randn(3, TINY.pixel_map.features)
    expected, made = plain(x, t, tokens), aligned(x, t, PixelTokens(tokens, features))
    assert float(expected.feats.detach().abs().max()) > 0
    torch.testing.assert_close(made.feats, expected.feats)


def test_the_loss_falls_and_everything_learns(tables: torch.Tensor) -> None:
    torch.manual_seed(0)
    sizes = [20, 22]
    latents = LatentSet(
        torch.randint(0, 4, (sum(sizes), 3)).short(),
        torch.randn(sum(sizes), TINY.latent).half(),
        torch.randn(sum(sizes), TINY.latent).half(),
        torch.tensor([0, 20, 42]),
        tables[:2],
    )
    encoder, statistics = TINY.build("encoder"), latents.statistics()
    stage = AlignedFlows(
        BOTH, TINY, latents, statistics, encoder, Runtime(CPU), 1, budget=100, every=99, batch=2
    )
    sums = trained(stage, 36)
    for name, least in (("shape", 0.97), ("texture", 0.97), ("base_color", 0.9)):
        early, late = (sum(s[name] for s in part) for part in (sums[:6], sums[-6:]))
        assert late < least * early, name


def test_the_structure_learns_from_maps_and_windows(tables: torch.Tensor) -> None:
    torch.manual_seed(0)
    latents = torch.randn(3, TINY.ss_latent, *[TINY.ss_grid] * 3)
    bank, encoder = TableBank(tables, CPU, 0), TINY.build("encoder")
    stage = AlignedStructureFlow(TINY, bank, Runtime(CPU), latents, encoder, 3, most=6, every=99, first=1)
    sums = trained(stage, 30)
    for name in ("base_color", "camera", "window"):
        early, late = (sum(s[name] for s in part) for part in (sums[:6], sums[-6:]))
        assert late < 0.9 * early, name


def test_cells_read_where_their_points_lie(tables: torch.Tensor) -> None:
    view, picture = drawn(tables)
    camera = rd.upright_camera(view)
    places, geometry = cell_geometry(8, camera, (view.centre, view.half))
    maps = torch.cat([picture.position, picture.mask], 1)
    read = cell_reading(maps, places, geometry)[..., :-10].unflatten(2, (8, 4))
    inner = torch.cartesian_prod(*[torch.arange(2)] * 3)
    points = torch.cartesian_prod(*[torch.arange(8)] * 3)[:, None] * 2 + inner
    centres = ((points + 0.5) / 16 - 0.5).expand(len(tables), -1, -1, -1)
    # Along the line of sight it sees the surface: what it reads projects to where the point does.
    whole = read[..., 3] > 0.99
    assert int(whole.sum()) > 500
    for i in range(len(tables)):
        its = UprightCamera(*(a[i : i + 1] for a in vars(camera).values()))
        a, b = (project_upright(x[i][whole[i]][None], its)[0] for x in (centres, read[..., :3]))
        assert float((a - b).norm(dim=-1).median()) < 0.03
    assert geometry.shape == (3, 512, 10)


def test_the_yaw_of_a_body_of_revolution_is_left_out() -> None:
    views = Views(
        *[torch.zeros(2, 1)] * 3,
        angles=torch.tensor([[0.8, 0.3, 0.6], [0.8, 0.3, 0.6]]),
        windows=torch.tensor([[0.0, 0.0, 0.4]]).repeat(2, 1),
        symmetric=torch.tensor([True, False]),
    )
    said = framing_targets(views.camera(), views.window())
    said[:, 0] -= math.pi / 2 / (math.pi / 3)  # a quarter turn
    terms = camera_terms(said, views)
    assert float(terms["camera"]) == pytest.approx(0.5 * 1.5 / 6, abs=1e-3), "of the second one alone"
    assert float(terms["_yaw_degrees"]) == pytest.approx(90, abs=0.1)
    assert float(terms["window"]) == pytest.approx(0, abs=1e-6)


def test_a_camera_head_grows_from_one_with_fewer_blocks(tmp_path: Path) -> None:
    before, tokens = CameraHead(TINY.cond), torch.randn(2, 17, TINY.cond)
    save_weights(tmp_path, "camera_head", before)
    grown = TINY.build("camera_head")
    assert len(grown.blocks) == 1
    assert load_weights(tmp_path, "camera_head", grown)
    assert torch.allclose(grown.normalised(tokens), before.normalised(tokens), atol=1e-6)


def test_pictures_give_way_to_new_ones(tables: torch.Tensor) -> None:
    bank, encoder = TableBank(tables, CPU, 0), TINY.build("encoder").eval()
    views = see(bank, tables, encoder, 64, Runtime(CPU))
    other = see(bank, tables[:2], encoder, 64, Runtime(CPU))
    kept = views.pictures[0].clone()
    views[torch.tensor([2, 1])] = other
    for name in vars(views):
        assert torch.equal(getattr(views, name)[2], getattr(other, name)[0])
        assert torch.equal(getattr(views, name)[1], getattr(other, name)[1])
    assert torch.equal(views.pictures[0], kept)


def test_every_pattern_shows_both_colours() -> None:
    ball = torch.zeros(1, tb.MAX_PRIMITIVES, tb.ROW)
    ball[..., tb.KIND] = -1
    ball[0, 0, tb.KIND] = 0
    ball[0, 0, tb.ROTATION : tb.ROTATION + 9] = torch.eye(3).reshape(-1)
    ball[0, 0, tb.PARAMS : tb.PARAMS + 3] = 0.5
    ball[0, 0, tb.SECOND : tb.SECOND + 3] = 1.0
    points = torch.nn.functional.normalize(torch.randn(1, 4000, 3), dim=-1) / 2
    shown = torch.zeros(1, 4000, dtype=torch.int64)
    for pattern, frequency in (
        (Pattern.STRIPES, 5.0),
        (Pattern.DOTS, 5.0),
        (Pattern.LABEL, 2.0),
        (Pattern.FACE, 1.0),
    ):
        ball[0, 0, tb.PATTERN], ball[0, 0, tb.FREQUENCY], ball[0, 0, tb.PHASE] = pattern, frequency, 0.5
        second = world.attributes(ball, points, shown)[0, :, 0] > 0.5
        assert 0.015 < float(second.float().mean()) < 0.7, pattern
        if pattern in (Pattern.LABEL, Pattern.FACE):
            assert bool((points[0, second, 1] < 0).all()), "on the front alone"


def test_patterns_are_the_same_every_time_and_leave_shapes(tables: torch.Tensor) -> None:
    made = [world.patterned(tables, torch.Generator().manual_seed(5), 1.0) for _ in range(2)]
    assert torch.equal(*made)
    changed = (made[0] != tables).any(0).any(0)
    material = torch.zeros(tb.ROW, dtype=torch.bool)
    material[tb.PATTERN : tb.TILT + 1] = True
    assert bool(changed[tb.PATTERN])
    assert not bool((changed & ~material).any())
    assert torch.equal(world.patterned(tables, torch.Generator().manual_seed(5), 0.0), tables)


def test_colour_scores_tell_patterns_from_plain() -> None:
    truth = torch.rand(500, 3)
    plain = truth.mean(0).expand(500, 3) + 1e-3 * torch.randn(500, 3)
    assert colour_scores(truth * 0.5 + 0.2, truth)["correlation"] == pytest.approx(1.0, abs=1e-5)
    assert abs(colour_scores(plain, truth)["correlation"]) < 0.2
    assert "correlation" not in colour_scores(truth, torch.full((500, 3), 0.5))
    assert colour_scores(truth + 0.1, truth)["mae"] == pytest.approx(0.1, abs=1e-5)


def test_a_case_knows_its_visible_voxels() -> None:
    config = replace(TINY, resolution=128)
    case = held_out_case(1, config, CPU)
    plain = torch.from_numpy(world.object_table(world.HELD_OUT_SEED + 1))
    unpatterned = voxelize(plain, config.resolution)
    assert torch.equal(case.truth.coords, unpatterned.coords), "patterns leave the shape"
    assert not torch.equal(case.truth.attributes, unpatterned.attributes)
    centres = (case.truth.coords[case.visible].float() + 0.5) / config.resolution - 0.5
    away = centres - case.view.position[0]
    towards = -(case.view.forward[0] * away).sum(-1)
    assert 30 < len(case.visible) < len(case.truth.coords)
    truth = case.truth.attributes[:, :3]
    true = rd.upright_camera(case.view)
    rows, pictured = rows_in_view(case, true)
    assert colour_scores(truth[rows], pictured)["correlation"] > 0.7
    turn = torch.full((1,), 0.5)
    rows, pictured = rows_in_view(case, true.moved(turn, 0 * turn, 0 * turn))
    assert colour_scores(truth[rows], pictured)["correlation"] < 0.6, "from elsewhere it is not the same"
    assert len(torch.unique(case.visible)) == len(case.visible)
    assert float(towards.max()) < 0
    again = visible_rows(case.truth, centres)
    assert torch.equal(again.sort().values, case.visible.sort().values)
    assert ev.to_rgba(case.picture).size == (512, 512)
