"""Connected components of an undirected graph, on the device its edges are on."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import group_lowest, nonzero_1d, rank_of_true


def connected_labels(count: int, pairs: Tensor) -> Tensor:
    """Component label [count] int64 of graph nodes joined by pairs [P, 2], numbered by smallest node.

    Pairs may repeat, join a node to itself and come in any order. In each of O(log count) rounds every node
    hooks onto its smallest neighbour, trees are flattened by pointer jumping, and each becomes one node of a
    smaller graph. Source: Shiloach, Vishkin, "An O(log n) parallel connectivity algorithm" (1982), hooking to
    the minimum as in Liu, Tarjan, "Simple concurrent labeling algorithms for connected components" (2019).
    """
    low, high = torch.minimum(pairs[:, 0], pairs[:, 1]).long(), torch.maximum(pairs[:, 0], pairs[:, 1]).long()
    levels: list[Tensor] = []
    while len(apart := nonzero_1d(low != high)):
        low, high = low.index_select(0, apart), high.index_select(0, apart)
        nodes = torch.arange(count, device=pairs.device)
        root = _flatten(group_lowest(high, low, nodes))
        rank, count = rank_of_true(root == nodes)
        levels.append(rank.index_select(0, root))
        a, b = levels[-1].index_select(0, low), levels[-1].index_select(0, high)
        low, high = torch.minimum(a, b), torch.maximum(a, b)
    labels = torch.arange(count, device=pairs.device)
    for level in reversed(levels):
        labels = labels.index_select(0, level)
    return labels


def _flatten(parent: Tensor) -> Tensor:
    """The root [N] above each node of a forest of parents [N]; a root is its own parent."""
    while True:
        for _ in range(3):  # eightfold height between two looks at it
            parent = parent.index_select(0, parent)
        above = parent.index_select(0, parent)
        if torch.equal(above, parent):
            return parent
        parent = above
