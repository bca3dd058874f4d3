"""Laying flat: conjugate gradients as a GPU uses them against exact factors, on charts of every shape."""

from __future__ import annotations

import pytest
import torch
from o_voxel.mesh.charts.clusters import cluster_faces, face_graph
from o_voxel.mesh.charts.flatten import FlatCharts, covered_cells, flatten_charts, signed_areas
from o_voxel.mesh.charts.laplacian import ConjugateGradients, Factors, Laplacian, chosen_solver

from .measures import bumpy, by_axis

Chart = tuple[torch.Tensor, torch.Tensor]
"""Vertices [3, V] float64 and faces [3, F]."""


def sheet(columns: int, rows: int, size: tuple[float, float] = (1.0, 1.0), bend: float = 1.0) -> Chart:
    """A grid of triangles, rolled about its long side by `bend` radians."""
    x, y = torch.meshgrid(torch.linspace(0, 1, columns + 1), torch.linspace(0, 1, rows + 1), indexing="ij")
    angle = bend * (x - 0.5)
    vertices = torch.stack([size[0] * angle.sin() / bend, size[1] * y, size[0] * angle.cos() / bend])
    corner = (torch.arange(columns)[:, None] * (rows + 1) + torch.arange(rows)).reshape(-1)
    a, b, c, d = corner, corner + rows + 1, corner + rows + 2, corner + 1
    faces = torch.cat([torch.stack([a, b, c]), torch.stack([a, c, d])], dim=1)
    return vertices.reshape(3, -1).double(), faces


def joined(*charts: Chart) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, faces and labels of charts side by side."""
    before = [0, *torch.tensor([vertices.shape[1] for vertices, _ in charts]).cumsum(0).tolist()]
    return (
        torch.cat([vertices for vertices, _ in charts], dim=1),
        torch.cat([faces + start for (_, faces), start in zip(charts, before, strict=False)], dim=1),
        torch.cat([torch.full((faces.shape[1],), k) for k, (_, faces) in enumerate(charts)]),
    )


def slivers() -> Chart:
    """Triangles a thousand times as long as wide."""
    return sheet(300, 3, (0.1, 1.0), bend=2.0)


def noise() -> Chart:
    vertices, faces = sheet(40, 40)
    return vertices + 0.01 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0)), faces


def ball() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices, faces = by_axis(bumpy(60))
    return vertices, faces, cluster_faces(face_graph(vertices, faces), 1.2, smoothing=2)


def fan() -> Chart:
    """A hundred faces around one vertex, as a low cone."""
    turn = torch.arange(100) * (2 * torch.pi / 100)
    rim = torch.stack([turn.cos(), turn.sin(), turn * 0 - 0.3])
    around = torch.arange(100)
    faces = torch.stack([torch.full_like(around, 100), around, (around + 1) % 100])
    return torch.cat([rim, torch.zeros(3, 1)], dim=1).double(), faces


def point() -> Chart:
    """A face that is nowhere."""
    return torch.zeros(3, 3).double(), torch.tensor([[0], [1], [2]])


CASES = {
    "one face": joined(sheet(1, 1)),
    "large": joined(sheet(120, 120, bend=2.5)),
    "long": joined(sheet(1500, 2, (1.0, 0.002), bend=2.0)),
    "slivers": joined(slivers()),
    "noise": joined(noise()),
    "fan": joined(fan()),
    "every size": joined(
        *((vertices * 10.0**-k, faces) for k, (vertices, faces) in enumerate([sheet(20, 20)] * 6)),
        *((vertices * 1e-3, faces) for vertices, faces in [sheet(1, 1)] * 400),
    ),
    "crumbs": joined(*[sheet(1, 1)] * 1100),
    "without area": joined(sheet(10, 10), point(), slivers(), point()),
    "a ball": ball(),
}


def energy(flat: FlatCharts, vertices: torch.Tensor) -> float:
    """What is left of the deviation from a rigid map, of the area: (s1 - 1)^2 + (s2 - 1)^2 on average."""
    corners = vertices[:, flat.vmap][:, flat.faces].permute(2, 0, 1)  # [F, 3, corner]
    first, second = corners[..., 1] - corners[..., 0], corners[..., 2] - corners[..., 0]
    size = first.norm(dim=1)
    area = torch.linalg.cross(first, second).norm(dim=1)
    proper = area > 1e-12 * area.max()
    rest = torch.zeros(len(size), 2, 2, dtype=torch.float64, device=size.device)
    rest[:, 0, 0], rest[:, 0, 1], rest[:, 1, 1] = size, (first * second).sum(dim=1) / size, area / size
    plane = flat.plane[:, flat.faces].permute(2, 0, 1)
    now = torch.stack([plane[..., 1] - plane[..., 0], plane[..., 2] - plane[..., 0]], dim=2)
    stretch = torch.linalg.svdvals(now[proper] @ torch.linalg.inv(rest[proper]))
    return float(((stretch - 1).square().sum(dim=1) * area[proper]).sum() / area.sum())


@pytest.mark.parametrize("case", list(CASES))
def test_conjugate_gradients_lay_charts_as_flat_as_factors(device: torch.device, case: str) -> None:
    vertices, faces, labels = CASES[case]
    exact = flatten_charts(vertices, faces, labels, solver=Factors)
    moved = [value.to(device) for value in (vertices, faces, labels)]
    near = flatten_charts(moved[0], moved[1], moved[2], solver=ConjugateGradients)
    assert torch.equal(near.valid.cpu(), exact.valid)
    assert torch.equal(near.faces.cpu(), exact.faces)
    left = energy(exact, vertices)
    assert energy(near, moved[0]) <= 1.1 * left + 3e-4
    for chart in range(int(labels.max()) + 1):
        inside = exact.owner == chart
        one, other = exact.plane[:, inside], near.plane.cpu()[:, inside]
        extent = (one.max(dim=1).values - one.min(dim=1).values).max()
        apart = (one - one.mean(dim=1, keepdim=True)) - (other - other.mean(dim=1, keepdim=True))
        assert float(apart.square().mean().sqrt()) <= 0.02 * float(extent)


@pytest.mark.parametrize("columns", [3, 60])
def test_conjugate_gradients_solve_the_system(device: torch.device, columns: int) -> None:
    vertices, faces, _ = joined(sheet(columns, columns), sheet(columns, 2, bend=0.5))
    owner = torch.cat(
        [torch.full((vertices.shape[1] - 3 * (columns + 1),), 0), torch.ones(3 * (columns + 1))]
    )
    weights = torch.rand(faces.shape, generator=torch.Generator().manual_seed(0)).double() * 5 + 0.02
    system = Laplacian(*(value.to(device) for value in (faces, weights, owner.long(), vertices)))
    solver = ConjugateGradients(system)
    solver.tolerance = 1e-9
    exact = (
        torch.randn((2, vertices.shape[1]), generator=torch.Generator().manual_seed(1)).double().to(device)
    )
    a, b, weights = system.edges()
    target = torch.zeros_like(exact)
    pull = (exact[:, a] - exact[:, b]) * weights
    target.index_add_(1, a, pull).index_add_(1, b, -pull)
    guess = exact + owner.to(device) + 0.1 * torch.sin(torch.arange(vertices.shape[1], device=device))
    solved = solver.solve(target, guess)
    for chart in range(2):
        inside = owner.to(device) == chart
        apart = (solved - exact)[:, inside]
        torch.testing.assert_close(apart, apart[:, :1].expand_as(apart), atol=1e-6, rtol=0)
        # translations are the guess's own
        drift = (solved - guess)[:, inside].mean(dim=1)
        assert float(drift.abs().max()) < 0.1


def test_each_device_has_its_solver() -> None:
    assert chosen_solver(torch.device("cpu")) is Factors
    assert chosen_solver(torch.device("cuda")) is ConjugateGradients


def test_a_rolled_sheet_unrolls(device: torch.device) -> None:
    vertices, faces, labels = (value.to(device) for value in joined(sheet(40, 20, bend=2.0)))
    flat = flatten_charts(vertices, faces, labels, iterations=60)
    assert bool(flat.valid.all())
    low, high = flat.plane.min(dim=1).values, flat.plane.max(dim=1).values
    assert sorted((high - low).tolist()) == pytest.approx([1.0, 1.0], abs=0.1)
    assert float(signed_areas(flat.plane, flat.faces).sum()) == pytest.approx(1.0, rel=1e-2)


def test_a_chart_that_overlaps_itself_is_not_valid(device: torch.device) -> None:
    """A strip wound twice around a ring, flat, and the same strip wound half around it."""
    for turns, valid in ((2.0, False), (0.5, True)):
        vertices, faces = sheet(100, 2)
        along, across = torch.linspace(0, 1, 101).repeat_interleave(3), torch.linspace(0, 1, 3).repeat(101)
        angle, radius = along * turns * 2 * torch.pi, 1.0 + 0.2 * across
        vertices = torch.stack([radius * angle.cos(), radius * angle.sin(), along * 0.01]).double()
        vertices, faces, labels = (value.to(device) for value in joined((vertices, faces)))
        flat = flatten_charts(vertices, faces, labels)
        assert flat.valid.tolist() == [valid]


def test_covered_cells_are_those_with_their_centre_inside(device: torch.device) -> None:
    corners = torch.rand((3, 2, 20), generator=torch.Generator().manual_seed(0)).double() * 9
    found = set(zip(*(part.tolist() for part in covered_cells(corners.to(device))), strict=True))
    expected = set()
    for face in range(20):
        (ax, ay), (bx, by), (cx, cy) = corners[:, :, face].tolist()
        for column in range(9):
            for row in range(9):
                x, y = column + 0.5, row + 0.5
                sides = [
                    (qx - px) * (y - py) - (qy - py) * (x - px)
                    for px, py, qx, qy in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay))
                ]
                if min(sides) > 0 or max(sides) < 0:
                    expected.add((face, column, row))
    assert found == expected
