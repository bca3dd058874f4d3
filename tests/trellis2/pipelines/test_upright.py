"""The conditions of flows that are pixel-aligned in the upright frame."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from trellis2.conditioning.pixel_map import (
    PixelMapConfig,
    PixelSource,
    framing_targets,
    load_pixel_source,
    save_pixel_source,
    voxel_features,
)
from trellis2.conditioning.structure_refiner import (
    StructureRefiner,
    StructureRefinerConfig,
    as_many_cells,
    load_structure_refiner,
    save_structure_refiner,
)
from trellis2.conditioning.upright import UprightCamera, project_upright, voxel_geometry
from trellis2.errors import CheckpointError
from trellis2.models import Model
from trellis2.nn.tokens import PixelTokens
from trellis2.pipelines import Trellis2ImageTo3DPipeline
from trellis2.pipelines.base import LatentPipeline
from trellis2.pipelines.conditioner import Condition, ImageConditioner, SeveralConditioners
from trellis2.pipelines.latents import occupied_coords
from trellis2.pipelines.upright_conditioner import UprightConditioner, UprightViews, with_seen_colors
from trellis2.pipelines.views import plain_views, view_warning
from trellis2.samplers.guidance import SeveralViews
from trellis2.sparse import SparseTensor

CONFIG = PixelMapConfig(image_size=64, tokens=32, stem=(8, 16, 16), middle=16, out=8)


@pytest.fixture(scope="module")
def source() -> PixelSource:
    torch.manual_seed(1)
    return PixelSource(CONFIG).eval().requires_grad_(False)


def conditioner(source: PixelSource, seed: int = 0) -> UprightConditioner:
    generator = torch.Generator().manual_seed(seed)
    picture, tokens = (
        torch.rand(1, 3, 64, 64, generator=generator),
        torch.randn(1, 17, 32, generator=generator),
    )
    plain = ImageConditioner({512: Condition(tokens, torch.zeros_like(tokens))})
    return UprightConditioner.of(plain, tokens, picture, source, frozenset({"texture"}))


def test_a_finer_grid_measures_in_the_cells_of_training(source: PixelSource) -> None:
    """How far behind the first surface, of voxels at the same places on grids of 32 and of 64."""
    camera = UprightCamera(*torch.tensor([[0.0], [0.0], [0.6]]))
    coarse = torch.tensor([[[16, 0, 16], [16, 3, 16], [0, 0, 0], [31, 0, 31]]])
    hidden = [voxel_geometry(coarse * k, 32 * k, camera)[1][..., -4:] for k in (1, 2)]
    assert bool((hidden[0][0, 1, :2] > 0.5).all()), "three cells behind the first"
    torch.testing.assert_close(hidden[1][0, 1], hidden[0][0, 1], rtol=1e-3, atol=1e-3)


def test_a_voxel_is_seen_in_the_picture_that_shows_it_best(source: PixelSource) -> None:
    front, back = (
        dataclasses.replace(conditioner(source, seed), aligned=frozenset({"shape", "texture"}))
        for seed in (0, 1)
    )
    straight = UprightCamera(*torch.tensor([[0.0], [0.0], [0.6]]))
    front = dataclasses.replace(front, camera=straight)
    both = UprightViews.around((front, back), (None, math.pi))
    # A box: its walls towards the first camera (-y), away from it, and one cell inside.
    side = torch.arange(4, 28)
    x, z = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    walls = [torch.stack([0 * x, x, y + 0 * x, z], 1) for y in (8, 24)]
    coords = torch.cat(walls).int()
    rows = len(x)
    seen = both.condition("shape", coords, 512)
    assert isinstance(seen.cond, PixelTokens)
    assert seen.cond.rows is not None
    turned = both.views[1]
    assert float(turned.camera.yaw) == pytest.approx(math.pi)
    torch.testing.assert_close(seen.cond.rows[:rows], front.features(coords, 512)[:rows])
    torch.testing.assert_close(seen.cond.rows[rows:], turned.features(coords, 512)[rows:])
    assert torch.equal(seen.cond.tokens, front.tokens.by_size[512].cond), "the first picture's"
    plain = both.condition("sparse_structure", None, 512)
    assert torch.equal(plain.cond, front.tokens.by_size[512].cond)


def test_sides_by_name_place_the_cameras(source: PixelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, made = LatentPipeline(), conditioner(source)
    monkeypatch.setattr(pipeline, "conditioner", lambda picture, sizes: made)
    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(3)]
    posed = plain_views(pictures, ("left", "front", "back"))
    assert [view.side for view in posed] == ["front", "left", "back"], "the front is the main view"
    assert [view.picture.getpixel((0, 0)) for view in posed] == [(1, 0, 0), (0, 0, 0), (2, 0, 0)]
    each = pipeline.conditioner_of(pictures, (512,), sides=[view.side for view in posed])
    assert isinstance(each, UprightViews)
    yaws = [float(view.camera.yaw) for view in each.views]
    assert yaws == pytest.approx([float(made.camera.yaw), math.pi / 2, math.pi])
    position = each.views[1].camera.axes()[0][0]
    assert float(position[0]) > 1, "its left side is on the right of who looks at its front"
    # Without the front the object stands as the first picture shows it: its back is a quarter turn from left.
    each = pipeline.conditioner_of(pictures, (512,), sides=["left", "back", "left"])
    assert isinstance(each, UprightViews)
    read = float(made.camera.yaw)
    assert [float(view.camera.yaw) for view in each.views] == pytest.approx([read, math.pi / 2, read])
    for sides in ((), ("front", None, "back")):
        unknown = pipeline.conditioner_of(pictures, (512,), sides=sides)
        assert isinstance(unknown, SeveralConditioners)
    said = [view_warning(3, range(1, 2), False, upright=True, sides=known) for known in (True, False)]
    assert "shows it best" in str(said[0])
    assert "say which side" in str(said[1])
    assert view_warning(1, range(1, 2), False, upright=True) is None


def test_each_item_is_seen_in_its_own_crop(source: PixelSource) -> None:
    made, resolution = conditioner(source), 512
    small = torch.tensor([[0, 10, 12, 14], [0, 11, 12, 14], [0, 12, 13, 15]], dtype=torch.int32)
    large = torch.tensor([[1, 2, 3, 1], [1, 30, 28, 31]], dtype=torch.int32)
    mixed = torch.cat([small[:1], large, small[1:]])
    condition = made.condition("texture", mixed, resolution)
    assert isinstance(condition.cond, PixelTokens)
    features = condition.cond.rows
    assert features is not None
    assert features.shape == (5, CONFIG.features)
    alone = voxel_features(made.maps, small[None, :, 1:], 32, made.camera)[0]
    torch.testing.assert_close(features[[0, 3, 4]], alone)
    assert condition.neg_cond.features is None
    assert not bool(condition.neg_cond.tokens.any())
    plain = made.condition("shape", mixed, resolution)
    assert torch.equal(plain.cond, made.tokens.by_size[512].cond)


def test_several_pictures_each_have_their_features(source: PixelSource) -> None:
    coords = torch.tensor([[0, 10, 12, 14], [0, 11, 20, 3]], dtype=torch.int32)
    views = (conditioner(source), conditioner(source, 1))
    condition = SeveralConditioners(views, "cycle").condition("texture", coords, 512)
    assert isinstance(condition.cond, SeveralViews)
    repeated = condition.repeated(3).cond.conds
    for view, cond in zip(views, repeated, strict=True):
        alone = view.condition("texture", coords, 512).cond
        torch.testing.assert_close(cond.features, alone.features)
        assert cond.tokens.shape == (3, 17, 32)
    assert not torch.equal(repeated[0].features, repeated[1].features)


def test_the_structure_has_a_map_and_a_window_of_its_own(source: PixelSource) -> None:
    torch.manual_seed(2)
    config = dataclasses.replace(CONFIG, structure=4)
    both = PixelSource(config).eval().requires_grad_(False)
    picture, tokens = torch.rand(1, 3, 64, 64), torch.randn(1, 17, 32)
    plain = ImageConditioner({512: Condition(tokens, torch.zeros_like(tokens))})
    made = UprightConditioner.of(plain, tokens, picture, both, frozenset({"sparse_structure"}), 4)
    condition = made.condition("sparse_structure", None, 512)
    assert condition.cond.features.shape == (1, 64, config.cell_features)
    assert condition.neg_cond.features is None
    assert condition.repeated(2).cond.features.shape == (2, 64, config.cell_features)
    window = made.window
    assert window is not None
    moved = dataclasses.replace(made, window=(window[0] + 0.2, window[1]))
    other = moved.condition("sparse_structure", None, 512).cond.features
    assert not torch.equal(other, condition.cond.features)
    without = UprightConditioner.of(plain, tokens, picture, source, frozenset({"sparse_structure"}))
    with pytest.raises(CheckpointError, match="no map"):
        without.condition("sparse_structure", None, 512)


def test_cameras_look_at_the_origin_from_where_they_say() -> None:
    angles = torch.tensor([[0.5, 0.3, 0.6], [-1.0, 0.0, 0.35]])
    camera = UprightCamera(*angles.unbind(1))
    points = torch.tensor([[0.0, 0, 0], [0, -0.5, 0], [0.5, 0, 0], [0, 0, 0.5]]).expand(2, -1, -1)
    places, depth = project_upright(points, camera)
    torch.testing.assert_close(places[:, 0], torch.zeros(2, 2), atol=1e-6, rtol=0)
    assert bool((depth[:, 1] < depth[:, 0]).all()), "the front is nearer"
    assert bool((places[:, 3, 1] > 0).all()), "up is up"
    # From the right of the front (yaw > 0) the front's middle lies to the left.
    assert float(places[0, 1, 0]) < 0 < float(places[1, 1, 0])
    centre = UprightCamera(torch.zeros(1), torch.full((1,), 0.436), torch.full((1,), 0.611))
    window = torch.zeros(1, 2), torch.full((1,), 0.45)
    torch.testing.assert_close(framing_targets(centre, window), torch.zeros(1, 6), atol=1e-6, rtol=0)


def test_voxels_in_sight_take_the_colours_of_their_picture() -> None:
    whole = PixelSource(dataclasses.replace(CONFIG, base_color=(8,) * 5)).eval().requires_grad_(False)
    straight = UprightCamera(*torch.tensor([[0.0], [0.0], [0.6]]))
    plain = ImageConditioner({512: Condition(torch.randn(1, 17, 32), None)})

    def lit(color: tuple[float, float, float]) -> UprightConditioner:
        """A square of one colour fills the picture; a fresh network takes it for the base colour."""
        picture = torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 64, 64)
        tokens = plain.by_size[512].cond
        made = UprightConditioner.of(plain, tokens, picture, whole, frozenset({"texture"}))
        return dataclasses.replace(made, camera=straight)

    # Two boxes; of each the walls towards the camera (-y) and away from it.
    side = torch.arange(16, 112)
    x, z = (grid.flatten() for grid in torch.meshgrid(side, side, indexing="ij"))
    walls = [torch.stack([0 * x + item, x, 0 * x + y, z], 1) for item in (0, 1) for y in (40, 90)]
    voxels = SparseTensor(torch.full((4 * len(x), 6), 0.5), torch.cat(walls).int(), 2)
    middle = ((x > 40) & (x < 88) & (z > 40) & (z < 88)).repeat(4)
    front = torch.tensor([True, False, True, False]).repeat_interleave(len(x))

    red, blue = lit((1.0, 0.5, 0.5)), lit((0.5, 0.5, 1.0))
    seen = with_seen_colors(red, voxels, 128).feats
    torch.testing.assert_close(seen[front & middle, :3], torch.tensor([[1.0, 0.5, 0.5]]).expand(2 * 47**2, 3))
    assert torch.equal(seen[:, 3:], voxels.feats[:, 3:]), "only base colours"
    both = UprightViews.around((red, blue), (None, math.pi))
    seen = with_seen_colors(both, voxels, 128).feats
    assert float(seen[front & middle, 0].min()) == pytest.approx(1)
    assert float(seen[~front & middle, 2].min()) == pytest.approx(1)
    without = dataclasses.replace(red, colors=None)
    for other in (None, plain, without, SeveralConditioners((red, blue), "cycle")):
        assert with_seen_colors(other, voxels, 128) is voxels


@pytest.mark.parametrize("base_color", [(), (8, 8, 8, 8, 16)])
def test_a_source_is_stored_and_read(tmp_path: Path, base_color: tuple[int, ...]) -> None:
    source = PixelSource(dataclasses.replace(CONFIG, base_color=base_color))
    save_pixel_source(source, tmp_path / "ckpts" / "pixels")
    read = load_pixel_source(tmp_path / "ckpts" / "pixels")
    assert read.config == source.config
    for name, parameter in source.named_parameters():
        torch.testing.assert_close(read.get_parameter(name), parameter.half().float())
    other = PixelSource(dataclasses.replace(CONFIG, out=16))
    save_pixel_source(other, tmp_path / "other")
    (tmp_path / "other.json").write_bytes((tmp_path / "ckpts" / "pixels.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"other\.json"):
        load_pixel_source(tmp_path / "other")


class Decoder(Model):
    """Cells of a ball, and a little of the latent."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        axis = torch.linspace(-1, 1, 64)
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        ball = 0.6 - (x * x + y * y + z * z).sqrt() + 0.01 * latent.mean()
        return (10 * ball).expand(len(latent), 1, -1, -1, -1)


def test_structures_are_refined_by_what_the_camera_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    config = dataclasses.replace(CONFIG, structure=4)
    both = PixelSource(config).eval().requires_grad_(False)
    picture, tokens = torch.rand(1, 3, 64, 64), torch.randn(1, 17, 32)
    plain = ImageConditioner({512: Condition(tokens, torch.zeros_like(tokens))})
    made = UprightConditioner.of(plain, tokens, picture, both, frozenset())
    shapes = StructureRefinerConfig(maps=12, tokens=32, latent=4, features=4, widths=(8, 8, 16), heads=2)
    refiner = StructureRefiner(shapes)
    torch.nn.init.normal_(refiner.out.weight, std=0.5)
    save_structure_refiner(refiner, tmp_path / "refiner")
    refiner = load_structure_refiner(tmp_path / "refiner")
    assert refiner.config == shapes
    latent = torch.randn(2, 4, 8, 8, 8)
    decoder = Decoder()
    models = {"sparse_structure_decoder": decoder}
    refining, usual = (
        Trellis2ImageTo3DPipeline(models, low_vram=False, structure_refiner=network)
        for network in (refiner, None)
    )
    for pipeline in (refining, usual):
        monkeypatch.setattr(pipeline, "sample_structure_latent", lambda *_: latent)
    coords = refining.sample_sparse_structure(made, 32, 2)
    before = decoder(latent)
    own = made.observation().repeated(2)
    refined = refiner(before, latent, own)[0]
    expected = occupied_coords(as_many_cells(refined, before), 32)
    assert torch.equal(coords, expected)
    assert torch.equal(usual.sample_sparse_structure(made, 32, 2), occupied_coords(before, 32))
    assert not torch.equal(coords, occupied_coords(before, 32))
    assert len(coords) == len(occupied_coords(before, 32)), "the decoder says how many, the refiner which"
    chosen = torch.zeros_like(refined, dtype=torch.bool)
    chosen[coords[:, 0], 0, coords[:, 1], coords[:, 2], coords[:, 3]] = True
    for its, cells in zip(refined, chosen, strict=True):
        assert float(its[cells].min()) > float(its[~cells].max()), "those of the largest logits"
    # By the camera that the conditioner has, whoever said where it is; of several pictures the first one's.
    turned = dataclasses.replace(made, camera=made.camera.moved(*torch.full((3, 1), 0.3)))
    assert not torch.equal(refining.sample_sparse_structure(turned, 32, 2), expected)
    views = UprightViews.around((turned, made), (None, 0.0))
    several = refining.sample_sparse_structure(views, 32, 2)
    assert torch.equal(several, refining.sample_sparse_structure(turned, 32, 2))
    # Other grids and other conditions than it has learnt: the decoder's cells.
    assert torch.equal(refining.sample_sparse_structure(made, 64, 2), occupied_coords(before, 64))
    assert torch.equal(refining.sample_sparse_structure(plain, 32, 2), occupied_coords(before, 32))
