"""Charts: edge-connected groups of faces within a cone, grown, straightened and absorbed."""

from __future__ import annotations

import pytest
import torch
from o_voxel.mesh.charts.clusters import (
    absorb_small_charts,
    cluster_faces,
    connected_charts,
    face_graph,
    smooth_borders,
    split_along,
)

from ...postprocess.objects import box
from ..shapes import on
from .measures import bumpy, by_axis


def strip(faces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces in a row, flat, two rows of vertices: face k of corners k, k + 1 and k + 2."""
    k = torch.arange(faces + 2)
    vertices = torch.stack([k * 0.5, k % 2, k * 0], dim=1).double()
    corners = torch.stack([k[:-2], k[1:-1], k[2:]], dim=1)
    return vertices, torch.where(corners[:, :1] % 2 == 1, corners, corners.flip(1))


def test_faces_know_their_neighbours(device: torch.device) -> None:
    """An edge of three faces separates them, and so does one that a face has twice."""
    vertices, faces = strip(4)
    fin = torch.tensor([[2, 3, 6]])
    loop = torch.tensor([[5, 5, 4]])
    vertices = torch.cat([vertices, torch.tensor([[0.0, 0.0, 1.0]])])
    graph = face_graph(*on(device, by_axis((vertices, torch.cat([faces, fin, loop])))))
    assert sorted(graph.pairs.T.tolist()) == [[0, 1], [2, 3]]
    torch.testing.assert_close(graph.lengths.cpu(), torch.full((2,), 1.25**0.5, dtype=torch.float64))
    assert [sorted(set(column)) for column in graph.neighbours.T.tolist()] == [
        [0, 1],
        [0, 1],
        [2, 3],
        [2, 3],
        [4],
        [5],
    ]
    torch.testing.assert_close(graph.normals[2, :4].abs().cpu(), torch.ones(4, dtype=torch.float64))
    assert float(graph.areas[5]) == 0


def test_charts_are_connected_and_within_their_cone(device: torch.device) -> None:
    limit = 0.9
    graph = face_graph(*on(device, by_axis(bumpy(40))))
    labels = cluster_faces(graph, limit, area_weight=0.0, perimeter_weight=0.0)
    assert torch.equal(connected_charts(graph, labels).unique(), labels.unique())
    for chart in range(int(labels.max()) + 1):
        normals = graph.normals[:, labels == chart]
        axis = normals.sum(dim=1) / normals.sum(dim=1).norm()
        widest = (axis @ normals).min().clamp(-1, 1).arccos()
        assert float(widest) <= 1.1 * limit  # the merge cost estimates the angle


def test_a_box_falls_into_its_sides(device: torch.device) -> None:
    graph = face_graph(*on(device, by_axis(box((-0.5, -0.3, -0.2), (0.5, 0.3, 0.2)))))
    labels = cluster_faces(graph, 0.5, smoothing=2)
    assert int(labels.max()) == 5
    for chart in range(6):
        normals = graph.normals[:, labels == chart]
        torch.testing.assert_close(normals, normals[:, :1].expand_as(normals))


def test_a_tooth_in_a_border_changes_sides(device: torch.device) -> None:
    graph = face_graph(*on(device, by_axis(strip(12))))
    labels = torch.tensor([0] * 5 + [1, 0] + [1] * 5, device=device)
    straight = smooth_borders(graph, labels, 1.0).tolist()
    assert straight in [[0] * first + [1] * (12 - first) for first in (5, 6, 7)]


def test_charts_of_few_faces_join_the_neighbour_they_share_most_with(device: torch.device) -> None:
    vertices, faces = strip(12)
    vertices[6:, 0] += 4.0  # a long border between faces 4 and 5, and 5 and 6
    graph = face_graph(*on(device, by_axis((vertices, faces))))
    labels = torch.tensor([0] * 5 + [1] + [2] * 6, device=device)
    joined = absorb_small_charts(graph, labels, 4)
    ends = labels[graph.pairs]
    border = {
        int(a): float(graph.lengths[((ends == 1) & (ends.flip(0) == a)).any(dim=0)].sum()) for a in (0, 2)
    }
    assert joined.tolist() == ([0] * 6 + [1] * 6 if border[0] > border[2] else [0] * 5 + [1] * 7)
    torch.testing.assert_close(absorb_small_charts(graph, labels, 1), labels)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_long_chart_is_cut_across(device: torch.device, chosen: bool) -> None:
    positions = torch.tensor([[0.0, 1, 2, 3, 9, 9], [0.0, 1, 2, 3, 0, 1]], dtype=torch.float64, device=device)
    labels = torch.tensor([0, 0, 0, 0, 1, 1], device=device)
    pieces = split_along(positions, labels, torch.tensor([chosen, False], device=device)).tolist()
    assert pieces[4:] == [1, 1]
    assert pieces[0] == pieces[1]
    assert pieces[2] == pieces[3]
    assert (pieces[0] != pieces[2]) == chosen
