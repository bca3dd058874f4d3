"""The procedural world: objects fit the cube, tracing finds their surface, the Triton twin agrees."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from trellis2_training import world
from trellis2_training.data import render as rd
from trellis2_training.data.voxelize import occupancy, surface_cells, voxelize
from trellis2_training.world import table as tb
from trellis2_training.world.families import FAMILIES, FIRST_FAMILIES

from trellis2.errors import InvalidArgumentError

distance = importlib.import_module("trellis2_training.world.distance")  # `world.distance` is its function

ONE_OF_EACH = len(FAMILIES)
# A number whose family is the first of all.
ALL_FROM = world.HELD_OUT_ALL + -world.HELD_OUT_ALL % ONE_OF_EACH
# Number, family, and a weighted sum of the table; the first families from below 200,000 and 1,000,000,000 on.
PINNED = (
    (0, "mug", 2.0061),
    (131_999, "sofa", -1.5991),
    (199_999, "castle", 3.5862),
    (200_000, "laptop", -3.3763),
    (250_042, "gamepad", -4.1044),
    (999_999_999, "die", 2.3151),
    (1_000_000_000, "bucket", 10.1589),
    (1_000_000_127, "car", -2.4166),
    (2_000_000_000, "phone", 6.0734),
    (2_000_000_083, "pineapple", 37.9280),
)


@pytest.fixture(scope="module")
def tables() -> Tensor:
    return world.held_out_tables(ONE_OF_EACH, ALL_FROM)


def _scattered(tables: Tensor, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((len(tables), count, 3), generator=generator) - 0.5) * 1.2


def test_there_are_many_families_and_they_take_turns() -> None:
    assert ONE_OF_EACH >= 72
    assert [world.family_of(ALL_FROM + i) for i in range(ONE_OF_EACH)] == list(FAMILIES)
    assert {world.family_of(i) for i in range(FIRST_FAMILIES)} == set(list(FAMILIES)[:FIRST_FAMILIES])


@pytest.mark.parametrize(
    ("number", "family", "total"),
    PINNED,
)
def test_objects_stay_what_they_are(number: int, family: str, total: float) -> None:
    """Held-out figures of different days speak of the same objects."""
    table = world.object_table(number).astype(np.float64)
    table[:, tb.FRONTLESS] = 0
    weights = np.cos(np.arange(table.size)).reshape(table.shape)
    assert world.family_of(number) == family
    assert float((table * weights).sum()) == pytest.approx(total, abs=1e-3)


def test_an_object_depends_on_its_number_alone() -> None:
    assert torch.equal(world.table_bank(5, 3), world.table_bank(0, 8)[5:])
    assert not torch.equal(world.table_bank(0, 1), world.table_bank(FIRST_FAMILIES, 1))


def test_tables_are_finite_and_name_known_kinds(tables: Tensor) -> None:
    assert bool(tables.isfinite().all())
    kinds = set(tables[..., tb.KIND].round().int().flatten().tolist())
    assert kinds <= {int(kind) for kind in tb.Kind}
    assert len(kinds) == len(tb.Kind)


def test_colours_are_within_range(tables: Tensor) -> None:
    points = _scattered(tables, 200)
    _, shown = world.distance(tables, points)
    attributes = world.attributes(tables, points, shown)
    assert attributes.shape == (ONE_OF_EACH, 200, 6)
    assert float(attributes.min()) >= 0
    assert float(attributes.max()) <= 1


def test_objects_lie_in_the_cube_and_touch_its_sides(tables: Tensor) -> None:
    for table in tables[::6]:
        coords = voxelize(table, 64).coords
        span = coords.amax(0) - coords.amin(0)
        assert int(coords.min()) >= 0
        assert int(coords.max()) < 64
        assert int(span.max()) >= 58, "the longest side fills the cube"


def test_distances_grow_no_faster_than_space(tables: Tensor) -> None:
    points = _scattered(tables, 400)
    step = torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    step = 0.01 * torch.nn.functional.normalize(step, dim=-1)
    gap = (world.distance(tables, points + step)[0] - world.distance(tables, points)[0]).abs()
    assert float(gap.quantile(0.99)) <= 0.01 * 1.1


@pytest.mark.parametrize("number", range(0, ONE_OF_EACH, 7))
def test_voxels_sit_on_the_surface(tables: Tensor, number: int) -> None:
    table = tables[number]
    made = voxelize(table, 64)
    assert bool((made.vertices >= 0).all() & (made.vertices <= 1).all())
    places = (made.coords + made.vertices) / 64 - 0.5
    off = world.distance(table[None], places[None])[0][0].abs()
    assert float(off.median()) < 0.1 / 64
    assert float(off.max()) < 1.8 / 64  # a voxel's diagonal
    assert bool(made.intersected.any(dim=0).all())


def test_occupancy_is_where_the_voxels_are(tables: Tensor) -> None:
    some = tables[::5]
    grids = occupancy(some)
    for table, grid in zip(some, grids, strict=True):
        truth = torch.zeros_like(grid[0], dtype=torch.bool)
        truth[tuple(voxelize(table, 64).coords.long().T)] = True
        found = grid[0] > 0
        assert float((truth & found).sum() / (truth | found).sum()) > 0.6


def test_rays_end_on_the_surface_or_miss(tables: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    origins, directions = rd.rays(rd.random_views(ONE_OF_EACH, generator), 48)
    start, reach = rd._through_cube(origins, directions)
    t, least = rd.trace(tables, origins, directions, start, reach, 72)
    hit = t < reach
    away = world.distance(tables, origins + t[..., None] * directions)[0].abs()
    assert 0.03 < float(hit.float().mean()) < 0.5
    assert float(away[hit].max()) <= 2 * rd._NEARLY  # a ray out of steps moves once more after its last look
    assert bool((t[hit] >= start[hit]).all())
    assert bool((least >= -1e-3).all())


def test_pictures_are_cut_tight_and_reproducible(tables: Tensor) -> None:
    some = tables[:6]

    def drawn() -> rd.Picture:
        generator = torch.Generator().manual_seed(3)
        view = rd.crop_view(some, rd.random_views(6, generator))
        return rd.render(some, view, rd.random_lights(view, generator), 64)

    picture, again = drawn(), drawn()
    assert torch.equal(picture.rgb, again.rgb)
    for mask in picture.mask[:, 0] > 0.5:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        longest = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
        assert longest >= 60
    assert float(picture.rgb.max()) <= 1
    assert float((picture.rgb * (1 - picture.mask)).abs().max()) == 0, "black outside"


def test_rows_of_a_batch_do_not_mix(tables: Tensor) -> None:
    points = _scattered(tables, 50)
    together = world.distance(tables, points)[0]
    alone = torch.cat([world.distance(tables[i, None], points[i, None])[0] for i in range(20)])
    torch.testing.assert_close(together[:20], alone)


def test_a_forced_backend_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_BACKEND", "triton")
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    with pytest.raises(distance.BackendError, match="triton"):
        world.distance(torch.zeros(1, 1, tb.ROW), torch.zeros(1, 1, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_triton_agrees_with_torch(tables: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    on_gpu = tables.cuda()
    points = _scattered(tables, 2000).cuda()
    expected, shown = distance.distance_torch(on_gpu, points)
    found, rows = world.distance(on_gpu, points)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert float((rows != shown).float().mean()) < 1e-3

    views = rd.random_views(ONE_OF_EACH, torch.Generator().manual_seed(0), "cuda")
    origins, directions = rd.rays(views, 64)
    start, reach = rd._through_cube(origins, directions)
    t, _ = rd.trace(on_gpu, origins, directions, start, reach, 48)
    monkeypatch.setenv("WORLD_BACKEND", "torch")
    u, _ = rd.trace(on_gpu, origins, directions, start, reach, 48)
    differ = (t < reach) != (u < reach)
    assert float(differ.float().mean()) < 1e-3
    both = (t < reach) & (u < reach)
    assert float((t - u)[both].abs().median()) < 1e-5


def test_the_bank_is_kept(tmp_path: Path) -> None:
    from trellis2_training.data.batches import load_or_make_bank

    path = tmp_path / "bank.pt"
    made = load_or_make_bank(path, 6, 1)
    stamp = path.stat().st_mtime_ns
    assert torch.equal(load_or_make_bank(path, 4, 1), made[:4])
    assert path.stat().st_mtime_ns == stamp
    assert len(load_or_make_bank(path, 8, 1)) == 8
    later = load_or_make_bank(tmp_path / "later.pt", 2, 1, first=4)
    assert torch.equal(later, load_or_make_bank(path, 8, 1)[4:6])


def test_recolouring_permutes_channels_and_nothing_else(tables: Tensor) -> None:
    from trellis2_training.data.batches import TableBank

    bank = TableBank(tables, torch.device("cpu"), 0)
    changed = bank.recoloured(tables)
    columns = [
        c for c in range(tb.ROW) if not tb.BASE <= c < tb.BASE + 3 and not tb.SECOND <= c < tb.SECOND + 3
    ]
    assert torch.equal(changed[..., columns], tables[..., columns])
    before = np.sort(tables[..., tb.BASE : tb.BASE + 3].numpy(), axis=-1)
    assert np.array_equal(np.sort(changed[..., tb.BASE : tb.BASE + 3].numpy(), axis=-1), before)
    assert not torch.equal(changed, tables)


def test_a_grid_that_doubling_does_not_reach_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="96"):
        surface_cells(torch.from_numpy(world.object_table(0)), 96)


def test_bodies_of_revolution_are_symmetric_and_things_with_a_front_are_not() -> None:
    names = [world.family_of(i) for i in range(FIRST_FAMILIES)]
    tables = world.table_bank(0, FIRST_FAMILIES)
    alike = dict(zip(names, world.is_symmetric(tables).tolist(), strict=True))
    assert all(alike[name] for name in ("bottle", "barrel", "lamp", "screwdriver", "rock", "tree"))
    assert not any(alike[name] for name in ("mug", "duck", "bear", "clock", "television", "train"))

    # The distance itself, under a turn that the flag does not use.
    points = _scattered(tables, 400)
    cos, sin = np.cos(0.4), np.sin(0.4)
    turned = points @ torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float32)
    change = (world.distance(tables, turned)[0] - world.distance(tables, points)[0]).abs().amax(1)
    assert float(change[names.index("bottle")]) < 1e-4
    assert float(change[names.index("mug")]) > 0.05


def test_eyes_are_a_front() -> None:
    first = ALL_FROM + list(FAMILIES).index("octopus")
    octopuses = torch.cat([world.table_bank(first + i * ONE_OF_EACH, 1) for i in range(6)])
    assert not bool(world.is_symmetric(octopuses).any())


def test_a_label_or_a_face_gives_a_bottle_a_front() -> None:
    bottle = world.table_bank(1, 1)
    assert world.family_of(1) == "bottle"
    bottle[0, 0, tb.PATTERN] = tb.Pattern.LABEL
    assert not bool(world.is_symmetric(bottle))
