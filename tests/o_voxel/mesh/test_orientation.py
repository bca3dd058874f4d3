"""Parities over a spanning forest, and the side of a component that can be seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.mesh.arrays.edges import EdgeTable, edge_table
from o_voxel.mesh.quality import mesh_quality
from o_voxel.mesh.rebuild.rebuild import rebuild
from o_voxel.mesh.repair import orientation
from o_voxel.mesh.repair.orientation import is_orientable, spanning_parities, unify_orientations
from o_voxel.postprocess import geometry
from o_voxel.postprocess.geometry import is_frayed

from .shapes import join, klein_bottle, mobius, sphere


@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 60), links=st.integers(0, 120))
@settings(max_examples=60, deadline=None)
def test_consistent_parities_are_found_again(seed: int, nodes: int, links: int) -> None:
    random = np.random.default_rng(seed)
    truth = torch.from_numpy(random.random(nodes) < 0.5)
    pairs = torch.from_numpy(random.integers(0, nodes, (links, 2)))
    parity, labels = spanning_parities(nodes, pairs, truth[pairs[:, 0]] ^ truth[pairs[:, 1]])
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        assert torch.equal(parity[members], truth[members] ^ truth[members[0]])
    assert torch.equal(labels[pairs[:, 0]], labels[pairs[:, 1]])
    smallest = [int((labels == label).nonzero()[0]) for label in range(int(labels.max()) + 1)]
    assert smallest == sorted(smallest)


def test_a_one_sided_band_keeps_a_short_seam() -> None:
    """A Möbius strip cannot be consistent, but all of it except for a cut across can."""
    around, across = 40, 3
    column = torch.arange(around)[:, None].expand(around, across)
    row = torch.arange(across).expand(around, across)
    here, up = column * (across + 1) + row, column * (across + 1) + row + 1
    last = column == around - 1
    there = torch.where(last, across - row, here + across + 1)
    there_up = torch.where(last, across - row - 1, up + across + 1)
    faces = torch.cat([torch.stack([here, there, up], 2), torch.stack([up, there, there_up], 2)]).reshape(
        -1, 3
    )
    flipped = torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) < 0.5
    mixed = torch.where(flipped[:, None], faces[:, [0, 2, 1]], faces).int()
    _, unified = unify_orientations(torch.rand((around * (across + 1), 3)), mixed)
    pairs = edge_table(unified, around * (across + 1)).manifold_pairs
    start = unified.reshape(-1)
    seam = int((start[pairs[:, 0]] == start[pairs[:, 1]]).sum())
    assert across <= seam <= 5 * across


@pytest.mark.parametrize("inwards", [False, True])
def test_a_ball_points_outwards_whatever_lies_inside(inwards: bool) -> None:
    points, faces = sphere(24)
    inner, bowl = sphere(24, 0.2)
    bowl = bowl[inner[bowl.long()].mean(dim=1)[:, 2] < 0]
    turned = faces[:, [0, 2, 1]] if inwards else faces
    _, found = unify_orientations(*join((points, turned), (inner, bowl)), outward=True)
    assert torch.equal(found[: len(faces)], faces)


@pytest.mark.parametrize("turned", range(4))
def test_balls_that_cross_all_point_outwards(turned: int) -> None:
    balls = [
        (points + torch.tensor([0.0, 0.0, z]), faces) for z in (0.0, 0.5) for points, faces in [sphere()]
    ]
    mixed = [(p, f[:, [0, 2, 1]] if turned >> k & 1 else f) for k, (p, f) in enumerate(balls)]
    _, found = unify_orientations(*join(*mixed), outward=True)
    assert torch.equal(found, join(*balls)[1])


def test_one_sided_surfaces_cannot_be_oriented() -> None:
    flipped = sphere()[1].clone()
    flipped[::3] = flipped[::3][:, [0, 2, 1]]
    assert is_orientable(flipped, len(sphere()[0]))
    for points, faces in (klein_bottle(), mobius()):
        assert not is_orientable(faces, len(points))


def test_a_klein_bottle_is_rebuilt_as_a_solid() -> None:
    """As it is, half of it would show its back whichever way it is turned."""
    assert is_frayed(klein_bottle())
    found = mesh_quality(*rebuild(*klein_bottle(), 1 / 48), views=6, picture=128)
    assert found.solid
    assert found.back_pixels < 0.002


def test_a_sound_surface_is_found_so_from_one_table_of_its_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are 18 M on an asset at 1024, and sorting them is most of the time."""
    tables = []

    def table(faces: torch.Tensor, count: int) -> EdgeTable:
        tables.append(len(faces))
        return edge_table(faces, count)

    for module in (geometry, orientation):
        monkeypatch.setattr(module, "edge_table", table)
    points, faces = sphere()
    faces = faces.clone()
    faces[::3] = faces[::3][:, [0, 2, 1]]
    assert not is_frayed((points, faces))
    assert len(tables) == 1
