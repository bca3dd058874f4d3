"""Components of graphs, against a plain union of one pair after the other and at sizes where depth counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from o_voxel.mesh.arrays.graph import connected_labels


def united(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    root = list(range(count))
    for a, b in pairs:
        low, high = sorted((root[a], root[b]))
        root = [low if label == high else label for label in root]
    smallest = sorted(set(root))
    return [smallest.index(label) for label in root]


@given(data=st.data(), count=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_labels_of_any_graph_go_by_smallest_node(data: st.DataObject, count: int) -> None:
    node = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=40))
    found = connected_labels(count, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2))
    assert found.dtype == torch.int64
    assert found.tolist() == united(count, pairs)


def test_no_pairs_and_no_nodes(device: torch.device) -> None:
    none = torch.zeros((0, 2), dtype=torch.int32, device=device)
    assert connected_labels(3, none).tolist() == [0, 1, 2]
    assert connected_labels(0, none).shape == (0,)


@pytest.mark.parametrize("shape", ["chain", "shuffled chain", "star", "comb"])
def test_two_large_components(device: torch.device, shape: str) -> None:
    """Deep trees, one hub, and hubs that all hook elsewhere first; even and odd nodes apart."""
    count = 50_000
    nodes = torch.arange(count)
    pairs = torch.stack([nodes[:-2], nodes[2:]], dim=1)
    if shape == "star":
        pairs = torch.stack([nodes, torch.where(nodes % 2 == 0, count - 2, count - 1)], dim=1)
    if shape == "comb":
        pairs = torch.cat(
            [pairs[count // 2 :], torch.stack([nodes[: count // 2], nodes[count // 2 :]], dim=1)]
        )
    names = nodes
    if shape == "shuffled chain":
        names = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(count, dtype=torch.int64)
    expected[names] = nodes % 2
    expected = (expected - expected[0]).abs()
    found = connected_labels(count, names[pairs].to(device))
    assert found.device.type == device.type
    assert torch.equal(found.cpu(), expected)


def test_sparse_random_graph(device: torch.device) -> None:
    """Near the threshold of percolation components have every size."""
    count = 2_000
    pairs = torch.randint(0, count, (count // 2, 2), generator=torch.Generator().manual_seed(1))
    expected = united(count, [(int(a), int(b)) for a, b in pairs])
    assert connected_labels(count, pairs.to(device)).tolist() == expected
    assert 100 < max(expected) < count
