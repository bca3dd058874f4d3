"""Frayed, open, nested and one-sided surfaces come back as one closed, outward, manifold one."""

from __future__ import annotations

import math

import pytest
import torch
from o_voxel.errors import ArgumentError
from o_voxel.mesh.charts.unwrap import unwrap
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.rebuild.rebuild import rebuild
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
