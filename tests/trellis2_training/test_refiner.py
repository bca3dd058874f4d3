"""The structure refiner: what its loss measures, that it learns, and that it starts from what was made."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from trellis2_training import world
from trellis2_training.config import MiniConfig
from trellis2_training.data import render as rd
from trellis2_training.data.batches import TableBank, view_batch
from trellis2_training.data.voxelize import occupancy
from trellis2_training.runtime import Runtime
from trellis2_training.stages.refiner import FROZEN, Refiner, cell_iou, outline_error, ray_points

from trellis2.conditioning.structure_refiner import (
    CUBE_DIAGONAL,
    Observation,
    StructureRefiner,
    StructureRefinerConfig,
)
from trellis2.conditioning.upright import behind_first, project_upright, voxel_points, window_places
from trellis2.nn.rope import grid_coords

from .test_aligned import trained


def stage(config: MiniConfig, bank: TableBank, runtime: Runtime) -> Refiner:
    """On networks that have learnt nothing."""
    torch.manual_seed(3)
    frozen = {name: config.build(name).eval().requires_grad_(False) for name in FROZEN}
    encoder = config.build("encoder").eval().requires_grad_(False)
    return Refiner(config, bank, runtime, encoder, frozen, batch=3, fresh=4, first=1, every=1000, most=4)


def test_it_starts_from_what_was_made_and_learns(
    config: MiniConfig, bank: TableBank, runtime: Runtime
) -> None:
    made = stage(config, bank, runtime)
    structures = made.structures(bank.draw(2)[1])
    given = structures.logits.float(), structures.latents.float(), structures.observation()
    logits, sheet = made.refiner(*given)
    assert logits.shape == (2, 1, 32, 32, 32)
    assert sheet.shape == structures.maps[:, :2].shape
    before = F.max_pool3d(structures.logits.float(), 2)
    assert torch.equal(logits > 0, before > 0), "at first it changes no cell"
    terms = trained(made, 25)
    assert all(value == value for term in terms for value in term.values())
    for name in ("bce", "mask", "nearness"):
        first, last = (sum(t[name] for t in part) / 5 for part in (terms[:5], terms[-5:]))
        assert last < 0.9 * first, name


def test_the_outline_is_that_of_the_true_cells() -> None:
    generator = torch.Generator().manual_seed(4)
    tables = world.table_bank(0, 3)
    bank = TableBank(tables, torch.device("cpu"), 5)
    view, picture = view_batch(bank, tables, 128, shadows=False)
    camera, window = rd.upright_camera(view), (view.centre, view.half)
    cells = F.max_pool3d(occupancy(tables), 2)
    right = float(outline_error(cells, picture.mask, camera, window))
    moved = float(outline_error(cells.roll(4, 4), picture.mask, camera, window))
    none = float(outline_error(torch.zeros_like(cells), picture.mask, camera, window))
    assert right < 0.2
    assert moved > 2 * right
    assert none > 5 * right
    points = ray_points(camera, window, 4, 5)
    places, depth = project_upright(points[:, 1, 2], camera)
    expected = torch.tensor([0.25, 0.25]) * view.half[:, None] + view.centre
    torch.testing.assert_close(places, expected[:, None].expand_as(places), atol=1e-5, rtol=1e-4)
    assert bool((depth.diff(dim=1) > 0).all())
    noise = torch.rand(cells.shape, generator=generator)
    assert cell_iou(cells - 0.5, cells > 0).tolist() == [1, 1, 1]
    assert float(cell_iou(noise - 0.5, cells > 0).max()) < 0.2


def test_cells_are_told_where_the_seen_surface_is() -> None:
    tables = world.table_bank(0, 3)
    bank = TableBank(tables, torch.device("cpu"), 6)
    view, picture = view_batch(bank, tables, 128, shadows=False)
    camera, window = rd.upright_camera(view), (view.centre, view.half)
    nearness = torch.einsum("bj,bjhw->bhw", -view.forward, picture.position)[:, None] / CUBE_DIAGONAL + 0.5
    sheet = torch.cat([20 * picture.mask - 10, nearness], 1)
    fine = occupancy(tables)
    refiner = StructureRefiner(StructureRefinerConfig(maps=4, features=4, widths=(8, 8, 8), heads=2))
    pictures, empty = picture.rgb, torch.zeros(3, 1, 1)
    seen = Observation(pictures, empty, empty, camera, window)
    told = refiner._half_cells(10 * fine - 5, sheet, seen)
    logits, cover, place, near = told.unflatten(1, (4, 8)).unbind(1)
    cells = F.max_pool3d(fine, 2)[:, 0]
    assert torch.equal(logits.amax(1) > 0, cells > 0), "half cells go with their cells"
    occupied = logits > 0
    assert float(cover[occupied].mean()) > 0.85
    assert float(cover[~occupied].mean()) < 0.6
    coords = grid_coords(32, "cpu").expand(3, -1, -1)
    plane, depth = project_upright(voxel_points(coords, 32), camera)
    behind = behind_first(window_places(plane, window), depth, cells.flatten(1) > 0)
    first = (cells.flatten(1) > 0) & (behind[..., 0] < 0.5 / 32)
    assert int(first.sum()) > 500
    at_surface = near.amax(1).flatten(1)
    assert float(at_surface[first].median()) > 0.9, "within half a cell of the surface"
    assert float(at_surface.mean()) < 0.4
    front = (4 * torch.atanh(place.clamp(-0.999, 0.999))).mean(1)
    nearer = front.flatten(1)[(behind[..., 0] < -4 / 32) & (behind[..., 0] > -2)]  # of where there are any
    assert float((nearer > 0).float().mean()) > 0.9, "positive towards the camera"
