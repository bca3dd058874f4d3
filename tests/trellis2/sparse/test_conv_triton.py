"""The Triton convolution against its portable twin: on CUDA, or else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from tests.trellis2.interpreter import interpret_triton
from trellis2.sparse import SparseConv3d, neighbor_table
from trellis2.sparse.conv_plan import TILE, conv_plan, neighbor_patterns
from trellis2.sparse.conv_torch import submanifold_conv

from .voxels import random_coords, random_voxels

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def dtype_for(device: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype, or a skip: the interpreter multiplies the bit patterns of bfloat16."""
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16 products")
    return dtype


def error(out: torch.Tensor, accurate: torch.Tensor) -> float:
    out, accurate = out.detach().double().cpu(), accurate.detach().double().cpu()
    return float((out - accurate).norm() / accurate.norm())


def test_a_plan_holds_every_row_once_and_every_neighbour() -> None:
    table = neighbor_table(random_coords([300, 211], size=8))
    plan = conv_plan(table)
    rows = table.shape[0]
    assert torch.equal(plan.order[:rows].sort().values, torch.arange(rows, dtype=torch.int32))
    assert (plan.order[rows:] == rows).all()
    found = plan.neighbors.transpose(1, 2).flatten(0, 1)
    assert torch.equal(found[:rows], table[plan.order[:rows]])
    assert (found[rows:] == rows).all()
    for tile in range(plan.tiles):
        needed = plan.taps[tile, : plan.counts[tile]]
        here = (found[tile * TILE : (tile + 1) * TILE] < rows).any(0).nonzero().flatten()
        assert torch.equal(needed, here.int())


def test_patterns_are_gray_code_ranks() -> None:
    table = neighbor_table(random_coords([300, 211], size=8))
    for row, rank in zip((table < len(table)).tolist(), neighbor_patterns(table).tolist(), strict=True):
        assert rank ^ (rank >> 1) == sum(here << tap for tap, here in enumerate(row))


def test_sorting_spares_taps() -> None:
    """A tilted plane: tiles in the rows' own order need most taps, sorted ones about half of them."""
    x, y = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    z = (0.4 * x + 0.3 * y).int()
    coords = torch.stack([torch.zeros_like(x), x, y, z], dim=-1).view(-1, 4).int()
    table = neighbor_table(coords)
    plain = (table < len(table)).view(-1, TILE, 27).any(1).sum(1).float().mean()
    assert conv_plan(table).counts.float().mean() < 0.75 * plain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("ci", "co"), [(8, 8), (24, 40), (64, 16), (130, 72)])
def test_forward_equals_the_twin(device: str, dtype: torch.dtype, ci: int, co: int) -> None:
    conv_triton = interpret_triton("trellis2.sparse.conv_triton", device)
    dtype = dtype_for(device, dtype)
    torch.manual_seed(0)
    table = neighbor_table(random_coords([130, 40], size=7))
    feats, bias = torch.randn(170, ci).to(dtype), torch.randn(co).to(dtype)
    weight = (torch.randn(co, 3, 3, 3, ci) / (27 * ci) ** 0.5).to(dtype)
    accurate = submanifold_conv(feats.double(), table, weight.double(), bias.double())
    plan = conv_plan(table.to(device))
    out = conv_triton.planned_conv(feats.to(device), plan, weight.to(device), bias.to(device))
    assert out.dtype == dtype
    assert error(out, accurate) < TOLERANCE[dtype]
    bare = conv_triton.planned_conv(feats.to(device), plan, weight.to(device))
    assert error(bare, accurate - bias.double()) < TOLERANCE[dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_gradients_equal_the_twin(device: str, dtype: torch.dtype) -> None:
    conv_triton = interpret_triton("trellis2.sparse.conv_triton", device)
    dtype = dtype_for(device, dtype)
    torch.manual_seed(0)
    table = neighbor_table(random_coords([130, 40], size=7))
    upstream = torch.randn(170, 24).to(dtype)
    leaves = [torch.randn(170, 40), torch.randn(24, 3, 3, 3, 40), torch.randn(24)]
    leaves = [leaf.to(dtype) for leaf in leaves]
    exact = [leaf.double().requires_grad_() for leaf in leaves]
    submanifold_conv(exact[0], table, *exact[1:]).backward(upstream.double())
    ours = [leaf.to(device).requires_grad_() for leaf in leaves]
    plan = conv_plan(table.to(device))
    conv_triton.planned_conv(ours[0], plan, *ours[1:]).backward(upstream.to(device))
    for mine, true in zip(ours, exact, strict=True):
        assert mine.grad is not None
        assert true.grad is not None
        assert error(mine.grad, true.grad) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("device", DEVICES)
def test_no_voxels_give_no_rows(device: str) -> None:
    conv_triton = interpret_triton("trellis2.sparse.conv_triton", device)
    plan = conv_plan(torch.empty(0, 27, dtype=torch.int32, device=device))
    feats = torch.empty(0, 8, device=device, requires_grad=True)
    weight = torch.randn(16, 3, 3, 3, 8, device=device, requires_grad=True)
    out = conv_triton.planned_conv(feats, plan, weight)
    assert out.shape == (0, 16)
    out.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("ci", "co"), [(8, 8), (64, 64), (128, 512), (1024, 1024)])
def test_the_layer_uses_it_on_cuda(ci: int, co: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "triton")
    torch.manual_seed(0)
    x = random_voxels([900, 1400], ci, size=24).to("cuda", torch.float16)
    conv = SparseConv3d(ci, co).to("cuda", torch.float16)
    fast = conv(x).feats
    monkeypatch.setenv("SPARSE_CONV_BACKEND", "torch")
    portable = conv(x).feats
    assert error(fast, portable) < TOLERANCE[torch.float16]
    repeated = [conv(x).feats for _ in range(2)]
    assert torch.equal(repeated[0], repeated[1])
