"""Frayed, open, nested and one-sided surfaces come back as one closed, outward, manifold one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from o_voxel.errors import ArgumentError
from o_voxel.mesh.charts.unwrap import unwrap
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.rebuild.rebuild import closed_surface, rebuild
from o_voxel.mesh.rebuild.sky import DIRECTIONS, sky
from o_voxel.mesh.repair.manifold import make_manifold

from .shapes import bow_tie, cube, mobius, sheet, sphere

STEP = 1 / 48


def _ball_volume(radius: float) -> float:
    return 4 / 3 * math.pi * radius**3


def _damaged(share: float) -> tuple[torch.Tensor, torch.Tensor]:
    points, faces = sphere(48)
    stays = torch.rand(len(faces), generator=torch.Generator().manual_seed(1)) > share
    return points, faces[stays]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_a_damaged_ball_is_a_full_ball_again(share: float) -> None:
    found = mesh_quality(*rebuild(*_damaged(share), STEP), views=6, picture=128)
    assert found.solid
    assert found.components == 1
    assert abs(found.volume / _ball_volume(0.4) - 1) < 0.04
    assert found.back_pixels < 0.002


def test_vertices_lie_on_the_input() -> None:
    points, _ = rebuild(*_damaged(0.05), STEP)
    off = (points.norm(dim=1) - 0.4).abs() / STEP
    assert float(off.mean()) < 0.15
    assert float(off.quantile(0.99)) < 0.6


def test_few_charts_hold_what_a_noisy_surface_becomes() -> None:
    points, faces = _damaged(0.05)
    noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(2))
    found = unwrap(*rebuild(points + 0.3 * STEP * noise, faces, STEP), texture_size=256)
    assert found.num_charts <= 40


def test_winding_plays_no_part() -> None:
    points, faces = sphere(32)
    mixed = torch.where((torch.arange(len(faces)) % 3 == 0)[:, None], faces.flip(1), faces)
    assert mesh_quality(*rebuild(points, mixed, STEP), look=False).solid


def test_inner_shells_and_floaters_go() -> None:
    points, faces = sphere(32)
    inner, crumb = points * 0.5, points * 0.01 + 0.45
    nested = (
        torch.cat([points, inner, crumb]),
        torch.cat([faces, faces.flip(1) + len(points), faces + 2 * len(points)]),
    )
    found = mesh_quality(*rebuild(*nested, STEP), look=False)
    assert (found.components, found.solid) == (1, True)
    assert abs(found.volume / _ball_volume(0.4) - 1) < 0.04


def test_what_was_closed_and_dropped_is_told() -> None:
    points, faces = sphere(48)
    open_ball = faces[points[faces.long()].mean(dim=1)[:, 2] > -0.395]
    made = closed_surface(points, open_ball, STEP)
    assert 0.0005 < made.closed < 0.05  # the cap is 0.6 %
    (closed,) = made.findings()
    assert f"{made.closed:.1%}" in closed
    (dropped,) = replace(made, closed=0.0, dropped=2).findings()
    assert "2 loose parts were dropped" in dropped


def test_what_is_seen_through_glass_stays() -> None:
    points, faces = sphere(32)
    nested = torch.cat([points, points * 0.4]), torch.cat([faces, faces + len(points)])
    glass = torch.arange(2 * len(faces)) < len(faces)
    found = mesh_quality(*rebuild(*nested, STEP, see_through=glass), look=False)
    assert found.solid
    assert found.components == 3  # the glass's two sides and the ball within
    assert found.volume < 0.5 * _ball_volume(0.4)


@pytest.mark.parametrize("shape", [sheet(8), mobius()], ids=["sheet", "mobius"])
def test_open_and_one_sided_sheets_become_thin_plates(shape: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = mesh_quality(*rebuild(*shape, 1 / 24), views=6, picture=128)
    assert found.solid
    assert found.back_pixels < 0.002
    assert found.volume < 2 / 24 * found.area / 2


def test_a_bowl_stays_open() -> None:
    points, faces = sphere(48)
    keep = (points[faces.long()].mean(dim=1)[:, 2] < 0.0).nonzero()[:, 0]
    found = mesh_quality(*rebuild(points, faces[keep], STEP), look=False)
    assert found.solid
    assert found.volume < 0.3 * _ball_volume(0.4) / 2


def _turned(profile: list[tuple[float, float]], around: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """The surface that a line of (radius, height) sweeps around the z axis, its quads a strip a segment."""
    angle = torch.arange(around) * (2 * math.pi / around)
    line = torch.tensor(profile)
    points = torch.stack(
        [line[:, :1] * angle.cos(), line[:, :1] * angle.sin(), line[:, 1:].expand(-1, around)], dim=2
    ).reshape(-1, 3)
    a = torch.arange(len(profile) - 1)[:, None] * around + torch.arange(around)
    b = torch.arange(len(profile) - 1)[:, None] * around + (torch.arange(around) + 1) % around
    first, second = torch.stack([a, b, a + around], dim=2), torch.stack([b, b + around, a + around], dim=2)
    return points, torch.cat([first.reshape(-1, 3), second.reshape(-1, 3)]).int()


def test_an_opening_wider_than_the_gap_closes_where_hardly_any_sky_comes_in() -> None:
    points, faces = sphere(96)
    middle = points[faces.long()].mean(dim=1)
    hole = (middle[:, :2].norm(dim=1) < 0.06) & (middle[:, 2] < 0)  # 15 % of the width
    found = mesh_quality(*rebuild(points, faces[~hole], STEP), look=False)
    assert found.solid
    assert abs(found.volume / _ball_volume(0.4) - 1) < 0.04


@pytest.mark.parametrize("lowest", [-0.37, -0.3])
def test_an_opening_that_shows_the_sky_stays_one(lowest: float) -> None:
    points, faces = sphere(48)
    keep = points[faces.long()].mean(dim=1)[:, 2] > lowest
    made = closed_surface(points, faces[keep], STEP)
    found = mesh_quality(made.vertices, made.faces, look=False)
    assert found.solid
    assert found.volume < 0.3 * _ball_volume(0.4)
    assert made.closed < 0.01  # nothing stands in the room


def test_a_double_wall_with_an_opening_as_wide_as_itself_is_full() -> None:
    """A tumbler of two sheets; the outside comes in between them through a gap of the rim."""
    wall = [(0.0, -0.4), (0.3, -0.4), (0.3, 0.4), (0.22, 0.4), (0.22, -0.32), (0.0, -0.32)]
    points, faces = _turned(wall)
    middle = points[faces.long()].mean(dim=1)
    gap = (middle[:, 2] > 0.39) & (middle[:, 0] > 0.2) & (middle[:, 1].abs() < 0.05)
    found = mesh_quality(*rebuild(points, faces[~gap], STEP), look=False)
    solid = math.pi * (0.3**2 * 0.8 - 0.22**2 * 0.72)
    assert found.solid
    assert abs(found.volume / solid - 1) < 0.1


def test_walls_that_are_thick_enough_stay_where_they_are() -> None:
    points, faces = cube()
    plate = (points - points.mean(dim=0)) * torch.tensor([1.0, 1.0, 1.2 * STEP])
    made, _ = rebuild(plate, faces, STEP)
    flat = made[(made[:, :2].abs() < 0.4).all(dim=1)]
    off = (flat[:, 2].abs() - 0.6 * STEP).abs() / STEP
    assert float(off.mean()) < 0.12


def test_the_sky_that_each_point_sees() -> None:
    empty = torch.rand((7, 8, 9), generator=torch.Generator().manual_seed(3)) > 0.2
    found = sky(empty)
    for x, y, z in itertools.product(*map(range, empty.shape)):
        count = 0
        for step in DIRECTIONS:
            place = [x, y, z]
            while all(0 <= at < size for at, size in zip(place, empty.shape, strict=True)):
                if not empty[tuple(place)]:
                    break
                place = [at + by for at, by in zip(place, step, strict=True)]
            else:
                count += 1
        assert int(found[x, y, z]) == count


def test_bad_settings() -> None:
    with pytest.raises(ArgumentError):
        rebuild(*cube(), 0.0)
    with pytest.raises(ArgumentError):
        rebuild(*cube(), 0.1, gap=-1.0)


def test_bodies_that_touch_come_apart() -> None:
    points, faces = cube()
    at_edge = torch.cat([points, points + torch.tensor([1.0, 1.0, 0.0])]), torch.cat([faces, faces + 8])
    for touching in (bow_tie(), at_edge):
        found = mesh_quality(*make_manifold(*touching), look=False)
        assert (found.components, found.solid) == (2, True)


def test_folded_faces_go_and_holes_close() -> None:
    points, faces = sphere(12)
    fold = torch.tensor([[5, 6, 30], [5, 30, 6]], dtype=torch.int32)
    found = mesh_quality(*make_manifold(points, torch.cat([faces[3:], fold])), look=False)
    assert found.solid
