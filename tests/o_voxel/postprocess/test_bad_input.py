"""Input that cannot be used is named; input that is merely odd gives a sound asset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError, MeshError
from o_voxel.mesh.quality import mesh_quality
from o_voxel.postprocess import to_glb

from benchmarks.glb import BOX, LAYOUT

from .objects import attributes, decoded, sphere

EMPTY = torch.zeros((0, 3), dtype=torch.int32)
SMALL: dict[str, Any] = {"decimation_target": 500, "texture_size": 64}


def soup(vertices: torch.Tensor, faces: torch.Tensor) -> dict[str, Any]:
    """Arguments for any triangles, with voxels everywhere in a grid of 8."""
    coords = torch.cartesian_prod(*[torch.arange(8)] * 3).int()
    return {
        "vertices": vertices,
        "faces": faces,
        "attr_volume": attributes((coords + 0.5) / 8 - 0.5),
        "coords": coords,
        "attr_layout": LAYOUT,
        "aabb": BOX,
        "grid_size": 8,
    }


def changed(ball: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return ball | SMALL | fields


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"vertices": EMPTY.float(), "faces": EMPTY}, MeshError, "empty"),
        ({"faces": torch.tensor([[0, 1, 10**6]])}, MeshError, "1000000"),
        ({"coords": EMPTY, "attr_volume": torch.zeros((0, 6))}, ArgumentError, "no voxels"),
        ({"coords": torch.tensor([[99, 0, 0]]), "attr_volume": torch.ones((1, 6))}, ArgumentError, "99"),
        ({"attr_volume": torch.zeros((2, 6))}, ArgumentError, "rows"),
        ({"attr_layout": {"base_color": slice(0, 3)}}, ArgumentError, "metallic"),
        ({"attr_layout": LAYOUT | {"base_color": slice(0, 2)}}, ArgumentError, "base_color"),
        ({"attr_layout": LAYOUT | {"alpha": slice(6, 7)}}, ArgumentError, "alpha"),
        ({"grid_size": None}, ArgumentError, "voxel_size or grid_size"),
        ({"aabb": [[0, 0, 0], [0, 1, 1]]}, ArgumentError, "aabb"),
        ({"aabb": None}, ArgumentError, "aabb"),
        ({"decimation_target": 0}, ArgumentError, "decimation_target"),
        ({"decimation_target": -5}, ArgumentError, "-5"),
        ({"texture_size": 0}, ArgumentError, "texture_size"),
        ({"texture_size": 10**6}, ArgumentError, "1000000"),
        ({"texture_format": "bmp"}, ArgumentError, "bmp"),
        ({"alpha_mode": "glass"}, ArgumentError, "glass"),
        ({"outer_shell": True, "remesh": False}, ArgumentError, "remesh"),
        ({"remesh": "perhaps"}, ArgumentError, "remesh"),
        ({"remesh": True, "remesh_band": 0}, ArgumentError, "band"),
        ({"remesh": True, "remesh_project": 2.0}, ArgumentError, "project_back"),
        ({"mesh_cluster_threshold_cone_half_angle_rad": 0.0}, ArgumentError, "cone"),
    ],
)
def test_says_what_is_wrong(ball: dict[str, Any], fields: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        to_glb(**changed(ball, **fields))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(ball: dict[str, Any], value: float) -> None:
    vertices, volume = ball["vertices"].clone(), ball["attr_volume"].clone()
    vertices[7, 1] = value
    with pytest.raises(MeshError, match="vertex 7"):
        to_glb(**changed(ball, vertices=vertices))
    volume[3, 2] = value
    with pytest.raises(ArgumentError, match="NaN or infinite"):
        to_glb(**changed(ball, attr_volume=volume))


def test_only_degenerate_faces() -> None:
    with pytest.raises(MeshError, match="all 1 faces are degenerate"):
        to_glb(**soup(torch.zeros((3, 3)), torch.tensor([[0, 1, 2], [1, 1, 2]])), **SMALL)


def test_one_triangle_survives() -> None:
    triangle = torch.tensor([[-0.3, -0.3, 0.0], [0.3, -0.3, 0.0], [0.0, 0.3, 0.1]])
    as_it_is = to_glb(**soup(triangle, torch.tensor([[0, 1, 2]])), **SMALL, remesh=False)
    assert as_it_is.report.faces == 1
    assert as_it_is.report.boundary_edges == 3
    assert not as_it_is.report.watertight
    plate = to_glb(**soup(triangle, torch.tensor([[0, 1, 2]])), **SMALL)
    assert plate.report.watertight


def test_a_wire_is_no_surface() -> None:
    """Triangles whose corners lie on one line have no area, and a thin wire around them is what is left."""
    line = torch.tensor([[-0.4, 0.0, 0.0], [0.4, 0.0, 0.0], [0.0, 0.0, 0.0]])
    asset = to_glb(**soup(line, torch.tensor([[0, 1, 2]])), **SMALL)
    assert asset.report.watertight
    assert (asset.report.components, asset.report.non_manifold_edges) == (1, 0)


def two_hundred_balls() -> tuple[torch.Tensor, torch.Tensor]:
    points, faces = sphere(0.02, 12)
    places = torch.cartesian_prod(*[torch.linspace(-0.4, 0.4, 6)] * 3)[:200]
    pieces = (points + places[:, None]).reshape(-1, 3)
    return pieces, (faces + len(points) * torch.arange(200)[:, None, None]).reshape(-1, 3)


def test_two_hundred_pieces() -> None:
    """Too many for the budget: what is left is sound, and within it."""
    asset = to_glb(**soup(*two_hundred_balls()), decimation_target=4000, texture_size=64)
    assert asset.report.faces <= 4000
    assert asset.report.components == 200
    assert asset.report.watertight


def klein_bottle(around: int = 48, along: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """The figure-eight immersion: one-sided, without borders, and it crosses itself."""
    u = (torch.arange(along) * (2 * torch.pi / along))[:, None]
    v = (torch.arange(around) * (2 * torch.pi / around))[None]
    r = 0.25 + 0.1 * ((u / 2).cos() * v.sin() - (u / 2).sin() * (2 * v).sin())
    z = 0.1 * ((u / 2).sin() * v.sin() + (u / 2).cos() * (2 * v).sin())
    points = torch.stack([r * u.cos(), r * u.sin(), z.expand_as(r)], dim=2).reshape(-1, 3)
    k, j = torch.meshgrid(torch.arange(along), torch.arange(around), indexing="ij")
    last = k == along - 1  # u comes round with v turned over

    def at(k: torch.Tensor, j: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        return (k % along) * around + torch.where(turn, -j, j) % around

    never = torch.zeros_like(last)
    a, b = at(k, j, never), at(k, j + 1, never)
    c, d = at(k + 1, j, last), at(k + 1, j + 1, last)
    faces = torch.cat([torch.stack([a, b, c], 2).reshape(-1, 3), torch.stack([b, d, c], 2).reshape(-1, 3)])
    return points, faces.int()


@pytest.mark.parametrize("shape", ["klein bottle", "crossing balls", "paper"])
def test_one_sided_and_crossing_surfaces_come_back_closed_and_outward(shape: str) -> None:
    if shape == "klein bottle":
        mesh = klein_bottle()
    elif shape == "paper":
        points = torch.tensor([[-0.4, -0.3, 0.0], [0.4, -0.3, 0.0], [0.4, 0.3, 0.0], [-0.4, 0.3, 0.0]])
        mesh = points, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    else:
        points, faces = sphere(0.25)
        mesh = torch.cat([points, points + 0.15]), torch.cat([faces, faces.flip(1) + len(points)])
    asset = to_glb(**decoded(mesh, 32), decimation_target=3000, texture_size=64)
    found = mesh_quality(torch.from_numpy(asset.vertices), torch.from_numpy(asset.faces))
    assert found.solid
    assert found.faces <= 3000
    assert found.back_pixels <= 0.005


PAPER = torch.tensor([[-0.4, -0.3, 0.0], [0.4, -0.3, 0.0], [0.4, 0.3, 0.0], [-0.4, 0.3, 0.0]])
ODD: dict[str, Callable[[], dict[str, Any]]] = {
    "triangle": lambda: soup(PAPER[:3], torch.tensor([[0, 1, 2]])),
    "wire": lambda: soup(torch.tensor([[-0.4, 0, 0], [0.4, 0, 0], [0.0, 0, 0]]), torch.tensor([[0, 1, 2]])),
    "paper": lambda: decoded((PAPER, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)), 32),
    "klein bottle": lambda: decoded(klein_bottle(), 32),
    "pieces": lambda: decoded(two_hundred_balls(), 64),
    "ghost": lambda: decoded(sphere(), 32, lambda points: attributes(points, alpha=0.0)),
}


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("extra", [{}, {"wall": 0.03, "flat_base": True}])
def test_prints_of_odd_surfaces_are_solid(shape: str, extra: dict[str, Any]) -> None:
    asset = to_glb(**ODD[shape](), decimation_target=4000, texture_size=64, outer_shell=True, **extra)
    found = mesh_quality(torch.from_numpy(asset.vertices), torch.from_numpy(asset.faces), look=False)
    assert found.solid
    assert found.faces <= 4000
    assert asset.report.volume == pytest.approx(found.volume, rel=1e-3)
    assert asset.report.thinnest is not None
    assert len(asset.export(file_type="stl")) == 84 + 50 * found.faces


def test_attributes_outside_the_range_are_clipped(ball: dict[str, Any]) -> None:
    wild = (ball["attr_volume"] - 0.5) * 1e4
    asset = to_glb(**changed(ball, attr_volume=wild))
    assert set(np.unique(asset.material.orm)) <= {0, 255}


def test_bytes_as_attributes(ball: dict[str, Any]) -> None:
    eight_bit = (ball["attr_volume"] * 255).round().to(torch.uint8)
    asset = to_glb(**changed(ball, attr_volume=eight_bit))
    assert set(np.unique(asset.material.orm[..., 2])) <= {63, 64}


def test_all_transparent_stays_visible() -> None:
    ghost = decoded(sphere(), 32, lambda points: attributes(points, alpha=0.0))
    asset = to_glb(**ghost, **SMALL)
    assert asset.report.alpha_mode == "OPAQUE"
    assert any("transparent" in note for note in asset.report.notes)


def test_voxels_far_from_the_surface(ball: dict[str, Any]) -> None:
    asset = to_glb(**changed(ball, coords=torch.tensor([[0, 0, 0]]), attr_volume=torch.ones((1, 6))))
    assert any("no voxel" in note for note in asset.report.notes)
    assert not asset.material.base_color.any()


def test_budget_above_the_mesh_changes_nothing_much(ball: dict[str, Any]) -> None:
    asset = to_glb(**changed(ball, decimation_target=10**9))
    assert asset.report.faces == len(ball["faces"])


def test_smallest_budget_is_sound(ball: dict[str, Any]) -> None:
    asset = to_glb(**changed(ball, decimation_target=4))
    assert 4 <= asset.report.faces <= 100
    assert np.isfinite(asset.vertices).all()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_soup_gives_an_asset_or_a_mesh_error(data: st.DataObject) -> None:
    """Random triangles: duplicates, fans, slivers, flips, shared corners."""
    count = data.draw(st.integers(3, 12))
    corner = st.integers(-4, 4).map(lambda n: n / 10)
    corners = st.lists(st.tuples(corner, corner, corner), min_size=count, max_size=count)
    vertices = torch.tensor(data.draw(corners))
    index = st.integers(0, count - 1)
    faces = torch.tensor(data.draw(st.lists(st.tuples(index, index, index), min_size=1, max_size=30)))
    try:
        asset = to_glb(**soup(vertices, faces), **SMALL)
    except MeshError:
        return
    assert np.isfinite(asset.uvs).all()
    assert asset.uvs.min() >= 0
    assert asset.uvs.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(asset.normals, axis=1), 1, atol=1e-4)
    assert asset.export()[:4] == b"glTF"
