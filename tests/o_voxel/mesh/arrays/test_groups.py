"""Grouped sums, extremes and orders, against one group after the other."""

from __future__ import annotations

import pytest
import torch
from o_voxel.mesh.arrays.groups import (
    argsort_deterministic,
    group_lowest,
    group_sizes,
    group_sums,
    nonzero_1d,
    scattered_lowest,
    scattered_sums,
)


def test_groups(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 50, (1000,), generator=generator).to(device)
    group[group == 7] = 8
    values = torch.rand(1000, generator=generator, dtype=torch.float64).to(device)
    start = torch.full((50,), 0.02, dtype=torch.float64, device=device)
    sums, sizes, lowest = (
        group_sums(group, values, 50),
        group_sizes(group, 50),
        group_lowest(group, values, start),
    )
    for k in range(50):
        inside = values[group == k]
        torch.testing.assert_close(sums[k], inside.sum())
        assert int(sizes[k]) == len(inside)
        assert float(lowest[k]) == min([0.02, *inside.tolist()])
    assert bool((start == 0.02).all())
    assert sizes.dtype == torch.int64


@pytest.mark.parametrize("members", [3000, 40_000])
def test_atomic_forms_agree(device: torch.device, members: int) -> None:
    """What a GPU uses, with few members a group and with so many that they share places."""
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 20, (members,), generator=generator)
    values = torch.rand(members, generator=generator, dtype=torch.float64)
    start = torch.full((20,), 1e-3, dtype=torch.float64)
    sums = scattered_sums(group.to(device), values.to(device), 20)
    lowest = scattered_lowest(group.to(device), values.to(device), start.to(device))
    torch.testing.assert_close(sums.cpu(), group_sums(group, values, 20))
    assert torch.equal(lowest.cpu(), group_lowest(group, values, start))
    assert len(scattered_sums(group[:0].to(device), values[:0].to(device), 0)) == 0


def test_orders(device: torch.device) -> None:
    keys = torch.randint(0, 90, (1000,), generator=torch.Generator().manual_seed(0)).to(device)
    order = argsort_deterministic(keys)
    assert torch.equal(order.sort().values, torch.arange(1000, device=device))
    assert bool((keys[order].diff() >= 0).all())
    assert torch.equal(nonzero_1d(keys == 4), (keys == 4).nonzero()[:, 0])
    assert len(nonzero_1d(keys > 99)) == 0
