from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.errors import ArgumentError
from o_voxel.mesh.rebuild.isosurface import QUADS, isosurface
from o_voxel.mesh.rebuild.remesh import outer_shell, remesh_narrow_band
from o_voxel.mesh.repair.components import face_components
from o_voxel.mesh.spatial.band import coords_of, find, keys_of
from o_voxel.mesh.spatial.bvh import TriangleBVH

from . import shapes


def components(faces: torch.Tensor, points: torch.Tensor) -> int:
    return int(face_components(faces, len(points)).max()) + 1


@pytest.mark.parametrize("resolution", [20, 32, 64])
def test_isosurface_of_a_ball(device: torch.device, resolution: int) -> None:
    radius = 0.35 * resolution

    def field(points: torch.Tensor, limit: float) -> torch.Tensor:
        return (points - resolution / 2).norm(dim=1) - radius

    surface = isosurface(field, resolution, device=device)
    away = (surface.vertices - resolution / 2).norm(dim=1) - radius
    assert float(away.abs().max()) < 0.35
    assert shapes.is_oriented(surface.faces)
    assert shapes.volume(surface.vertices, surface.faces) == pytest.approx(4.19 * radius**3, rel=0.03)
    inside_cell = surface.vertices - surface.cells
    assert bool(((inside_cell >= 0) & (inside_cell <= 1)).all())


def test_sparse_isosurface_equals_dense_surface_nets() -> None:
    size = 64
    centre = torch.tensor([30.3, 33.1, 31.7])

    def field(points: torch.Tensor, limit: float) -> torch.Tensor:
        return ((points - centre).norm(dim=1) - 14.2).abs() - 1.5

    surface = isosurface(field, size)
    axis = torch.arange(size + 1).float()
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    values = field(grid.reshape(-1, 3), 0.0).reshape(size + 1, size + 1, size + 1).numpy()
    # Every lattice edge with a sign change owns one quad; every mixed cell has the mean of its crossings.
    negative = values < 0
    quads = sum(int((np.diff(negative, axis=a)).sum()) for a in range(3))
    assert len(surface.faces) == 2 * quads
    for cell, vertex in list(zip(surface.cells.tolist(), surface.vertices.tolist(), strict=True))[::97]:
        crossings = []
        for a in range(3):
            for u in (0, 1):
                for v in (0, 1):
                    p = list(cell)
                    p[(a + 1) % 3] += u
                    p[(a + 2) % 3] += v
                    q = list(p)
                    q[a] += 1
                    f, g = values[tuple(p)], values[tuple(q)]
                    if (f < 0) != (g < 0):
                        at = [float(x) for x in p]
                        at[a] += f / (f - g)
                        crossings.append(at)
        assert vertex == pytest.approx(np.mean(crossings, axis=0).tolist(), abs=1e-4)


def test_quads_run_from_the_smallest_voxel_and_face_minus_the_axis() -> None:
    for axis, quad in enumerate(QUADS):
        a, b, c, _ = quad.double()
        normal = torch.linalg.cross(b - a, c - a)
        assert normal[axis] < 0
        assert quad[0].tolist() == [0, 0, 0]


def test_keys() -> None:
    coords = torch.tensor([[0, 0, 0], [1, 2, 3], [6, 6, 6]])
    keys = keys_of(coords, 7)
    assert torch.equal(coords_of(keys, 7), coords)
    assert find(keys, torch.tensor([0, 5, 342, 999])).tolist() == [0, -1, 2, -1]


def test_double_shell_of_a_sphere(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere(48))
    resolution = 64
    shell, shell_faces = remesh_narrow_band(points, faces, (0, 0, 0), 1.0, resolution)
    cell = 1 / resolution
    away = TriangleBVH(points, faces).closest(shell).distance
    assert float((away - cell).abs().max()) < 0.6 * cell
    assert shapes.is_oriented(shell_faces)
    assert components(shell_faces, shell) == 2
    thickness = 4 * math.pi * 0.16 * 2 * cell
    assert shapes.volume(shell, shell_faces) == pytest.approx(thickness, rel=0.1)


def test_outer_layer_only(device: torch.device) -> None:
    points, faces = shapes.on(device, shapes.sphere(48))
    shell, shell_faces = remesh_narrow_band(points, faces, (0, 0, 0), 1.0, 64, only_outer=True)
    assert components(shell_faces, shell) == 1
    assert shapes.is_oriented(shell_faces)
    assert float((shell.norm(dim=1) - 0.4 - 1 / 64).abs().max()) < 0.6 / 64


def test_nested_bodies_vanish_and_separate_ones_stay() -> None:
    outer, inner = shapes.sphere(24), shapes.sphere(24, 0.2)
    beside = (shapes.sphere(24, 0.1)[0] + torch.tensor([0.6, 0.0, 0.0]), shapes.sphere(24)[1])
    points, faces = outer_shell(*shapes.join(outer, inner, beside), resolution=96)
    assert components(faces, points) == 2
    assert shapes.is_oriented(faces)
    expected = 4.19 * ((0.4 + 1.1 / 84) ** 3 + (0.1 + 1.1 / 84) ** 3)
    assert shapes.volume(points, faces) == pytest.approx(expected, rel=0.05)


def test_a_wide_opening_lets_the_outside_in_and_a_pinhole_does_not() -> None:
    points, faces = shapes.sphere(32)
    height = points[faces.long()].mean(dim=1)[:, 2]
    cup = faces[height < 0.3]
    shell, shell_faces = outer_shell(points, cup, resolution=64)
    assert shapes.is_oriented(shell_faces)
    assert float(shell.norm(dim=1).min()) < 0.39  # the inner wall is there
    pinhole = faces[4:]
    closed, closed_faces = outer_shell(points, pinhole, resolution=64)
    assert shapes.is_oriented(closed_faces)
    assert components(closed_faces, closed) == 1
    assert float(closed.norm(dim=1).min()) > 0.39


def test_a_long_crevice_narrower_than_the_coarse_grid_is_followed() -> None:
    # A box with a thin slit into a wide cavity: the cavity counts as outside only by way of the fine lattice.
    def field(points: torch.Tensor, limit: float) -> torch.Tensor:
        p = points - 64
        box = (p.abs() - 50).amax(dim=1)
        cavity = (p.abs() - 20).amax(dim=1)
        slit = torch.stack([p[:, 0].abs() - 1.6, p[:, 1].abs() - 1.6, -p[:, 2]]).amax(dim=0)
        return torch.maximum(box, torch.maximum(-cavity, -slit))

    def sealed(points: torch.Tensor, limit: float) -> torch.Tensor:
        p = points - 64
        return torch.maximum((p.abs() - 50).amax(dim=1), -(p.abs() - 20).amax(dim=1))

    through = isosurface(field, 128, only_outer=True)
    assert len(through.faces) == len(isosurface(field, 128).faces)
    shut = isosurface(sealed, 128, only_outer=True)
    assert float((shut.vertices - 64).abs().amax(dim=1).min()) > 40
    assert components(isosurface(sealed, 128).faces, isosurface(sealed, 128).vertices) == 2


def test_projecting_back_returns_to_the_surface() -> None:
    points, faces = shapes.sphere(32)
    tree = TriangleBVH(points, faces)
    for weight, left in ((0.5, 0.5), (0.9, 0.1), (1.0, 0.0)):
        shell, _ = remesh_narrow_band(points, faces, (0, 0, 0), 1.0, 32, project_back=weight, bvh=tree)
        away = tree.closest(shell).distance.mean()
        assert float(away) == pytest.approx(left / 32, abs=0.05 / 32)


def test_an_open_sheet_becomes_a_closed_slab() -> None:
    points, faces = shapes.sheet(4, 0.5)
    shell, shell_faces = remesh_narrow_band(points, faces, (0, 0, 0), 1.0, 32)
    assert shapes.is_oriented(shell_faces)
    assert components(shell_faces, shell) == 1


@given(seed=st.integers(0, 10**6), faces=st.integers(1, 12), band=st.floats(0.9, 3.0), outer=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_soup_gives_a_closed_oriented_mesh_within_a_cell(
    seed: int, faces: int, band: float, outer: bool
) -> None:
    points, corners = shapes.triangle_soup(np.random.default_rng(seed), 10, faces)
    shell, shell_faces = remesh_narrow_band(points, corners, (0, 0, 0), 1.5, 32, band, only_outer=outer)
    assert len(shell_faces) > 0
    assert shapes.is_oriented(shell_faces)
    away = TriangleBVH(points, corners).closest(shell).distance * 32 / 1.5
    assert float((away - band).abs().max()) < 1.0


def test_a_grid_elsewhere_gives_an_empty_mesh() -> None:
    points, faces = remesh_narrow_band(*shapes.cube(), (50, 0, 0), 1.0, 32, only_outer=True)
    assert len(points) == 0
    assert faces.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band": 0.0}, "band"),
        ({"scale": 0.0}, "scale"),
        ({"project_back": 2.0}, "project_back"),
        ({"resolution": 1}, "resolution"),
        ({"resolution": 262}, "halves only to 131"),
        ({"center": (0, 0)}, "center"),
    ],
)
def test_bad_arguments(change: dict[str, float], message: str) -> None:
    arguments = {"center": (0, 0, 0), "scale": 1.0, "resolution": 32} | change
    with pytest.raises(ArgumentError, match=message):
        remesh_narrow_band(*shapes.cube(), **arguments)


def test_outer_shell_needs_room() -> None:
    with pytest.raises(ArgumentError, match="raise it"):
        outer_shell(*shapes.cube(), resolution=4)
