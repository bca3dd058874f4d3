"""The sampling rule against a plain reading of it, and the kernel against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from o_voxel import sampling
from o_voxel.errors import ArgumentError
from o_voxel.sampling import VoxelGrid, sample_nearest, sample_trilinear, trilinear_torch


def shell(side: int, seed: int = 0) -> torch.Tensor:
    """Voxels of a spherical shell, in random order."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"), dim=-1).view(-1, 3)
    radius = (grid + 0.5 - side / 2).norm(dim=1)
    coords = grid[(radius - 0.4 * side).abs() < 1.2]
    return coords[torch.randperm(len(coords), generator=torch.Generator().manual_seed(seed))].int()


def by_the_rule(coords: torch.Tensor, attrs: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """One point at a time, from the definition."""
    rows = {tuple(c): i for i, c in enumerate(coords.tolist())}
    out = torch.zeros((len(points), attrs.shape[1]), dtype=torch.float64)
    for n, q in enumerate(points.double().numpy()):
        base, total = np.floor(q - 0.5), 0.0
        for offset in itertools.product((0, 1), repeat=3):
            voxel = base + offset
            row = rows.get(tuple(int(v) for v in voxel))
            if row is not None:
                weight = float(np.prod(1 - np.abs(q - voxel - 0.5)))
                out[n] += weight * attrs[row].double()
                total += weight
        out[n] /= max(total, 1e-12)
    return out


@pytest.fixture
def shell_case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    coords = shell(20)
    attrs = torch.rand((len(coords), 5), generator=generator)
    near = coords[:300] + torch.rand((300, 3), generator=generator) * 2 - 0.5
    anywhere = torch.rand((100, 3), generator=generator) * 24 - 2
    return coords, attrs, torch.cat((near, anywhere))


def test_trilinear_follows_the_rule(shell_case: tuple[torch.Tensor, ...]) -> None:
    coords, attrs, points = shell_case
    out = sample_trilinear(VoxelGrid(coords, (20, 20, 20)), attrs, points)
    torch.testing.assert_close(out.double(), by_the_rule(coords, attrs, points), atol=1e-5, rtol=1e-5)


def test_kernel_equals_torch(shell_case: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    coords, attrs, points = shell_case
    grid = VoxelGrid(coords, (20, 20, 20))
    odd = torch.tensor([[float("nan"), 1, 1], [float("inf"), 0, 0], [-1e30, 5, 5], [1e30, 1e30, 1e30]])
    points = torch.cat((points, odd))
    monkeypatch.setattr(sampling, "SMALLEST_LAUNCH", 0)
    torch.testing.assert_close(
        sample_trilinear(grid, attrs, points), trilinear_torch(grid, attrs, points), atol=1e-5, rtol=1e-5
    )
    assert (sample_trilinear(grid, attrs, odd) == 0).all()


def test_sparse_brick_list_equals_table(
    shell_case: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    coords, attrs, points = shell_case
    table = VoxelGrid(coords, (20, 20, 20))
    monkeypatch.setattr(sampling, "MAX_TABLE_ENTRIES", 0)
    listed = VoxelGrid(coords, (20, 20, 20))
    assert listed._table is None
    torch.testing.assert_close(table.find(coords), listed.find(coords))
    expected = trilinear_torch(table, attrs, points)
    torch.testing.assert_close(trilinear_torch(listed, attrs, points), expected)
    monkeypatch.setattr(sampling, "SMALLEST_LAUNCH", 0)
    torch.testing.assert_close(sample_trilinear(listed, attrs, points), expected, atol=1e-5, rtol=1e-5)


def test_find(shell_case: tuple[torch.Tensor, ...]) -> None:
    coords, _, _ = shell_case
    grid = VoxelGrid(coords, (20, 20, 20))
    assert grid.find(coords).tolist() == list(range(len(coords)))
    absent = torch.tensor([[10, 10, 10], [-1, 0, 0], [20, 19, 19], [1 << 40, 0, 0], [-(1 << 40), 5, 5]])
    assert grid.find(absent).tolist() == [-1] * 5


def test_a_voxel_centre_returns_its_attributes() -> None:
    coords = shell(12)
    attrs = torch.rand((len(coords), 3))
    out = sample_trilinear(VoxelGrid(coords, (12, 12, 12)), attrs, coords + 0.5)
    torch.testing.assert_close(out, attrs)


def test_absent_neighbours_do_not_darken() -> None:
    grid = VoxelGrid(torch.tensor([[3, 3, 3]]), (8, 8, 8))
    points = torch.tensor([[3.0, 3.0, 3.0], [4.4, 3.5, 2.6], [4.6, 3.5, 3.5], [2.4, 3.5, 3.5]])
    out = sample_trilinear(grid, torch.tensor([[0.8]]), points)
    torch.testing.assert_close(out[:, 0], torch.tensor([0.8, 0.8, 0.0, 0.0]))


def test_a_bad_row_elsewhere_does_not_leak() -> None:
    coords = torch.tensor([[0, 0, 0], [5, 5, 5]])
    attrs = torch.tensor([[float("nan")], [1.0]])
    out = sample_trilinear(
        VoxelGrid(coords, (8, 8, 8)), attrs, torch.tensor([[5.2, 5.5, 5.5], [2.5, 2.5, 2.5]])
    )
    assert out[:, 0].tolist() == [1.0, 0.0]


def test_nearest_truncates() -> None:
    coords = torch.tensor([[0, 0, 0], [2, 1, 0]])
    grid = VoxelGrid(coords, (4, 4, 4))
    points = torch.tensor([[0.9, 0.9, 0.9], [-0.9, 0.5, 0.5], [2.0, 1.99, 0.0], [1.9, 1.0, 0.0]])
    out = sample_nearest(grid, torch.tensor([[1.0], [2.0]]), points)
    assert out[:, 0].tolist() == [1.0, 1.0, 2.0, 0.0]


def test_gradient_reaches_attributes() -> None:
    grid = VoxelGrid(torch.tensor([[0, 0, 0], [1, 0, 0]]), (2, 1, 1))
    attrs = torch.tensor([[1.0], [3.0]], requires_grad=True)
    sample_trilinear(grid, attrs, torch.tensor([[0.75, 0.5, 0.5]])).sum().backward()
    assert attrs.grad is not None
    torch.testing.assert_close(attrs.grad, torch.tensor([[0.75], [0.25]]))


def test_bytes_become_float_and_half_stays_half() -> None:
    grid = VoxelGrid(torch.tensor([[0, 0, 0]]), (1, 1, 1))
    point = torch.full((1, 3), 0.5)
    assert sample_trilinear(grid, torch.tensor([[7]], dtype=torch.uint8), point).dtype == torch.float32
    assert sample_trilinear(grid, torch.tensor([[7.0]], dtype=torch.half), point).dtype == torch.half


def test_empty() -> None:
    grid = VoxelGrid(torch.zeros((0, 3), dtype=torch.int32), (4, 4, 4))
    assert sample_trilinear(grid, torch.zeros((0, 2)), torch.ones((5, 3))).tolist() == [[0.0, 0.0]] * 5
    assert sample_nearest(grid, torch.zeros((0, 2)), torch.ones((5, 3))).tolist() == [[0.0, 0.0]] * 5
    full = VoxelGrid(torch.zeros((1, 3), dtype=torch.int32), (1, 1, 1))
    assert sample_trilinear(full, torch.ones((1, 2)), torch.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize(
    ("coords", "shape"),
    [
        (torch.tensor([[0, 0, 4]]), (4, 4, 4)),
        (torch.tensor([[-1, 0, 0]]), (4, 4, 4)),
        (torch.tensor([[1, 1, 1], [1, 1, 1]]), (4, 4, 4)),
        (torch.tensor([[0.5, 0.0, 0.0]]), (4, 4, 4)),
        (torch.tensor([[0, 0]]), (4, 4, 4)),
        (torch.tensor([[0, 0, 0]]), (0, 4, 4)),
        (torch.tensor([[0, 0, 0]]), (4, 4)),
    ],
)
def test_bad_grids_are_refused(coords: torch.Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError):
        VoxelGrid(coords, shape)


def test_bad_queries_are_refused() -> None:
    grid = VoxelGrid(torch.tensor([[0, 0, 0]]), (1, 1, 1))
    with pytest.raises(ArgumentError, match="one row a voxel"):
        sample_trilinear(grid, torch.zeros((2, 1)), torch.zeros((1, 3)))
    with pytest.raises(ArgumentError, match="points"):
        sample_nearest(grid, torch.zeros((1, 1)), torch.zeros((1, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu(shell_case: tuple[torch.Tensor, ...]) -> None:
    coords, attrs, points = shell_case
    points = points.repeat(20, 1)
    here = sample_trilinear(VoxelGrid(coords, (20, 20, 20)), attrs, points)
    there = sample_trilinear(VoxelGrid(coords.cuda(), (20, 20, 20)), attrs.cuda(), points.cuda())
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-5)
