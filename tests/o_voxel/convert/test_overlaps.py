"""Triangle-voxel overlap and segment walks against dense sampling."""

from __future__ import annotations

import pytest
import torch
from o_voxel.convert.frame import GridFrame, grid_frame
from o_voxel.convert.overlaps import segment_cells, triangle_overlaps
from o_voxel.convert.quadrics import triangle_normals
from o_voxel.sampling import VoxelGrid


@pytest.fixture
def full() -> tuple[GridFrame, VoxelGrid]:
    """Every voxel of a grid whose voxels are not cubes."""
    frame = grid_frame(grid_size=(8, 10, 6), aabb=[[0, 0, 0], [1, 1, 1]])
    axes = [torch.arange(g) for g in frame.grid_size]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)
    return frame, VoxelGrid(coords, frame.grid_size)


@pytest.mark.parametrize("size", [0.05, 0.3, 1.5])
def test_overlaps_hold_every_sampled_voxel_and_nothing_far(
    full: tuple[GridFrame, VoxelGrid], size: float
) -> None:
    frame, grid = full
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand((40, 1, 3), generator=generator)
    triangles = (centre + (torch.rand((40, 3, 3), generator=generator) - 0.5) * size).double()
    voxel, face = triangle_overlaps(triangles, triangle_normals(triangles), frame, grid)
    assert face.tolist() == sorted(face.tolist())
    pairs = set(zip(face.tolist(), voxel.tolist(), strict=True))
    assert len(pairs) == len(face)

    weights = torch.rand((4000, 3), generator=generator).double()
    weights /= weights.sum(dim=1, keepdim=True)
    points = torch.einsum("sk,fkc->fsc", weights, triangles)
    row = grid.find((points / frame.voxel_size).floor().long())
    sampled = {(f, r) for f in range(40) for r in row[f].unique().tolist() if r >= 0}
    assert sampled <= pairs

    middle = (grid.coords + 0.5) * frame.voxel_size.double()
    reach = float(frame.voxel_size.norm()) / 2 + 0.03 * size  # half a diagonal, and the samples' spacing
    for f, v in pairs:
        assert float((points[f] - middle[v]).norm(dim=1).min()) < reach + 0.06


def test_only_existing_voxels_are_listed(full: tuple[GridFrame, VoxelGrid]) -> None:
    frame, grid = full
    triangles = torch.tensor([[[0.1, 0.1, 0.1], [0.9, 0.2, 0.3], [0.3, 0.9, 0.8]]]).double()
    everywhere, _ = triangle_overlaps(triangles, triangle_normals(triangles), frame, grid)
    half = VoxelGrid(grid.coords[everywhere[::2]], frame.grid_size)
    some, _ = triangle_overlaps(triangles, triangle_normals(triangles), frame, half)
    assert sorted(some.tolist()) == list(range(len(half)))


def test_a_walk_visits_the_sampled_cells_in_order(full: tuple[GridFrame, VoxelGrid]) -> None:
    frame, _ = full
    start = torch.tensor([[0.11, 0.93, 0.42], [-0.7, 0.33, 0.21], [0.5, 0.5, 0.5]]).double()
    end = torch.tensor([[0.87, 0.12, 0.77], [1.9, 0.71, 0.64], [0.5, 0.5, 0.9]]).double()
    length = (end - start).norm(dim=1)
    direction = (end - start) / length[:, None]
    walked: list[list[tuple[int, ...]]] = [[], [], []]
    for segment, cell in segment_cells(start, direction, length, frame):
        for s, c in zip(segment.tolist(), cell.tolist(), strict=True):
            walked[s].append(tuple(c))
    limit = torch.tensor(frame.grid_size)
    for s in range(3):
        t = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
        cells = ((start[s] + t * (end[s] - start[s])) / frame.voxel_size).floor().long()
        cells = cells[((cells >= 0) & (cells < limit)).all(dim=1)].unique_consecutive(dim=0)
        inside = [c for c in walked[s] if all(0 <= v < g for v, g in zip(c, frame.grid_size, strict=True))]
        assert inside == [tuple(c) for c in cells.tolist()]
