"""Packing: charts side by side in the square, none on another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from o_voxel import kernels
from o_voxel.mesh.charts import packing as packing_module
from o_voxel.mesh.charts.flatten import FlatCharts, covered_cells
from o_voxel.mesh.charts.packing import pack_charts

from .measures import triangles


def flat_charts(
    plane: torch.Tensor, faces: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> FlatCharts:
    owner = torch.zeros(len(plane), dtype=torch.int64)
    owner[faces] = labels[:, None]
    return FlatCharts(
        faces=faces.T.contiguous().to(device),
        vmap=torch.arange(len(plane), device=device),
        plane=plane.double().T.contiguous().to(device),
        labels=labels.to(device),
        owner=owner.to(device),
        valid=torch.ones(int(labels.max()) + 1, dtype=torch.bool, device=device),
    )


def test_more_charts_than_a_row_holds(device: torch.device) -> None:
    """Hundreds of separate triangles still fit the square, with a texel free between any two."""
    plane = torch.rand((1200, 2), generator=torch.Generator().manual_seed(0)) * 0.1
    faces = torch.arange(1200).reshape(-1, 3)
    packing = pack_charts(flat_charts(plane, faces, torch.arange(400), device), cells=256)
    assert float(packing.uvs.min()) >= 0
    assert float(packing.uvs.max()) <= 1
    assert packing.utilisation > 0.1
    face, column, row = covered_cells(triangles(packing.uvs.T.cpu(), faces) * 512)
    assert len((row * 512 + column).unique()) == len(row)
    owner = torch.full((512, 512), -1)
    owner[row, column] = face
    for a, b in ((owner[:, 1:], owner[:, :-1]), (owner[1:], owner[:-1]), (owner[1:, 1:], owner[:-1, :-1])):
        both = (a >= 0) & (b >= 0)
        assert torch.equal(a[both], b[both])


def test_a_chart_without_a_border_has_its_place_too(device: torch.device) -> None:
    """Two faces back to back, as simplifying leaves of a small closed part."""
    plane = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 1], [3, 4, 5]])
    packing = pack_charts(flat_charts(plane, faces, torch.tensor([0, 0, 1]), device), cells=64)
    assert float(packing.uvs.min()) >= 0
    assert float(packing.uvs.max()) <= 1
    size = (packing.uvs[:, [1, 4]] - packing.uvs[:, [0, 3]]).norm(dim=0)
    assert float(size[0]) == pytest.approx(float(size[1]) * 2 / 3)


def test_a_chart_lies_in_the_hole_of_another(device: torch.device) -> None:
    """A frame of 10 with a hole of 6, and a square of 5: beside one another they would fill 0.4 at most."""
    ring = [(0, 0), (10, 0), (10, 10), (0, 10), (2, 2), (8, 2), (8, 8), (2, 8)]
    square = [(0, 0), (5, 0), (5, 5), (0, 5)]
    sides = [(k, (k + 1) % 4, (k + 1) % 4 + 4, k + 4) for k in range(4)] + [(8, 9, 10, 11)]
    faces = torch.tensor([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])
    plane = torch.tensor([*ring, *square], dtype=torch.float32)
    labels = torch.tensor([0] * 8 + [1] * 2)
    packing = pack_charts(flat_charts(plane, faces, labels, device), cells=128)
    assert packing.utilisation > 0.8
    place = packing.uvs.T.cpu()
    low, high = place[4:8].amin(dim=0), place[4:8].amax(dim=0)
    assert bool((place[8:] > low).all())
    assert bool((place[8:] < high).all())


def triangles_of(count: int) -> FlatCharts:
    plane = torch.rand((3 * count, 2), generator=torch.Generator().manual_seed(1))
    faces = torch.arange(3 * count).reshape(-1, 3)
    return flat_charts(plane, faces, torch.arange(count), torch.device("cpu"))


def test_scales_tried_at_once_give_the_same_atlas(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = triangles_of(40)
    monkeypatch.setattr(kernels, "cpu_threads", lambda: 1)
    expected = pack_charts(flat, cells=128)
    tried = []

    def pack(outline, inner, scale, *rest):  # type: ignore[no-untyped-def]
        tried.append(scale)
        return whole(outline, inner, scale, *rest)

    whole = packing_module._pack
    monkeypatch.setattr(packing_module, "_pack", pack)
    pack_charts(flat, cells=128)
    alone = list(tried)
    monkeypatch.setattr(kernels, "cpu_threads", lambda: 8)
    found = pack_charts(flat, cells=128)
    assert set(alone) < set(tried[len(alone) :])
    assert torch.equal(found.uvs, expected.uvs)


def test_cells_that_are_marked_are_those_that_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slanted charts have boxes that are mostly empty, so too many boxes are not marked."""
    flat = triangles_of(40)
    outline = packing_module._outline(flat.plane, flat, spacing=0.01)
    cell = (outline.points[:, None] * 50).astype(np.int32)
    low = np.minimum.reduceat(cell, outline.first, axis=2)
    cell = cell - low[..., outline.owner]
    sizes = np.maximum.reduceat(cell, outline.first, axis=2) + 1
    marked, first = packing_module._border_cells(outline, cell, sizes)
    monkeypatch.setattr(packing_module, "_MOST_BOXES", 0)
    for found, expected in zip(
        packing_module._border_cells(outline, cell, sizes), (marked, first), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    for chart, (start, end) in enumerate(pairwise(first)):
        own = cell[:, 0, outline.owner == chart].T
        assert {*map(tuple, marked[start:end].tolist())} == {*map(tuple, own.tolist())}
        assert end - start == len(np.unique(own, axis=0))
