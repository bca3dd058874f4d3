from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trellis2.sparse.voxels import random_voxels
from trellis2.errors import InvalidArgumentError
from trellis2.models import SLatFlowModel, SparseStructureFlowModel, flow, recorded_flow
from trellis2.nn.rope import grid_coords, sincos_positions
from trellis2.sparse import SparseTensor, sparse_cat

from .configs import TINY


def randomised(cls: Any, **overrides: Any) -> Any:
    """A model whose zero-initialised layers are random too, so that every path matters."""
    torch.manual_seed(3)
    model = cls(**{**TINY[cls.__name__], **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def sparse_model() -> SLatFlowModel:
    model: SLatFlowModel = randomised(SLatFlowModel)
    return model


@torch.no_grad()
def test_a_dense_grid_is_a_token_list_over_all_its_cells() -> None:
    dense = randomised(SparseStructureFlowModel)
    sparse = SLatFlowModel(**{**TINY["SLatFlowModel"], "in_channels": 2, "out_channels": 2}).eval()
    sparse.load_state_dict({k: v for k, v in dense.state_dict().items() if k != "rope_phases"})
    x, t, cond = torch.randn(2, 2, 4, 4, 4), torch.tensor([900.0, 20.0]), torch.randn(2, 5, 20)
    cells = grid_coords(4)
    coords = torch.cat([torch.cat([torch.full((64, 1), b), cells], dim=1) for b in range(2)]).int()
    tokens = SparseTensor(x.flatten(2).transpose(1, 2).flatten(0, 1), coords)
    torch.testing.assert_close(sparse(tokens, t, cond).dense(), dense(x, t, cond), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_prepared_context_gives_the_same_numbers(sparse_model: SLatFlowModel) -> None:
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    plain = sparse_model(x, t, cond)
    cache = sparse_model.prepare_cond(cond)
    assert torch.equal(sparse_model(x, t, cache).feats, plain.feats)


@torch.no_grad()
@pytest.mark.parametrize("pe_mode", ["rope", "ape"])
def test_a_finer_grid_is_seen_in_the_cells_that_were_learnt(pe_mode: str) -> None:
    plain = randomised(SLatFlowModel, pe_mode=pe_mode)
    half = randomised(SLatFlowModel, pe_mode=pe_mode, position_scale=0.5)
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    fine = x.coords.clone()
    fine[:, 1:] *= 2
    finer = SparseTensor(x.feats, fine)
    assert not torch.allclose(plain(finer, t, cond).feats, plain(x, t, cond).feats, atol=1e-3)
    if pe_mode == "rope":  # of relative places alone
        torch.testing.assert_close(half(finer, t, cond).feats, plain(x, t, cond).feats, rtol=1e-4, atol=1e-5)
    places = half.to_tokens(finer).positions
    if places is not None:
        torch.testing.assert_close(places, sincos_positions(x.coords[:, 1:] - 0.25, places.shape[1]))


@torch.no_grad()
def test_a_context_that_is_not_stored_gives_the_same_numbers(
    sparse_model: SLatFlowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "SHORT_CONTEXT", 9)
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    context = sparse_model.prepare_cond(cond, store=False)
    assert context.blocks == ()
    assert torch.equal(sparse_model(x, t, context).feats, sparse_model(x, t, cond).feats)
    assert sparse_model.prepare_cond(cond[:1], store=False).blocks, "a short context is stored all the same"


@torch.no_grad()
def test_where_a_pass_is_cut_does_not_matter(
    sparse_model: SLatFlowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    tokens, context = sparse_model.to_tokens(x), sparse_model.prepare_cond(cond)
    inputs = tokens.features, t, tokens.phases, tokens.positions
    for blocks in (1, 5):
        monkeypatch.setattr(recorded_flow, "SEGMENT_BLOCKS", blocks)
        call = recorded_flow.segmented(sparse_model, tokens.layout, context)
        assert torch.equal(call(*inputs), sparse_model(x, t, cond).feats)
    short = recorded_flow.segmented(sparse_model, tokens.layout, context, blocks=1)
    assert not torch.equal(short(*inputs), call(*inputs))


@torch.no_grad()
def test_batched_guidance_equals_two_passes(sparse_model: SLatFlowModel) -> None:
    x, t, cond = random_voxels([20], 8), torch.tensor([300.0]), torch.randn(1, 5, 20)
    both = sparse_model(sparse_cat([x, x]), t.repeat(2), torch.cat([cond, torch.zeros_like(cond)]))
    torch.testing.assert_close(both.feats[:20], sparse_model(x, t, cond).feats, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both.feats[20:], sparse_model(x, t, cond * 0).feats, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_single_context_token_needs_no_queries(sparse_model: SLatFlowModel) -> None:
    x, t, token = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 1, 20)
    cache = sparse_model.prepare_cond(token)
    assert all(b.result is not None for b in cache.blocks)
    # Softmax over equal keys gives their common value: five copies say the same the long way.
    long = sparse_model(x, t, token.repeat(1, 5, 1))
    torch.testing.assert_close(sparse_model(x, t, cache).feats, long.feats, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_concatenated_condition_comes_after_the_noisy_channels(sparse_model: SLatFlowModel) -> None:
    x, shape = random_voxels([20], 4), random_voxels([20], 4, seed=0)
    shape = x.replace(shape.feats * 2)
    t, cond = torch.tensor([300.0]), torch.randn(1, 5, 20)
    joined = x.replace(torch.cat([x.feats, shape.feats], dim=1))
    out = sparse_model(x, t, cond, concat_cond=shape)
    assert torch.equal(out.feats, sparse_model(joined, t, cond).feats)
    assert out.coords is x.coords


@torch.no_grad()
@pytest.mark.parametrize("pe_mode", ["rope", "ape"])
def test_16_bit_output_is_float32_and_close(pe_mode: str) -> None:
    x, t, cond = torch.randn(1, 2, 4, 4, 4), torch.tensor([500.0]), torch.randn(1, 5, 20)
    model = randomised(SparseStructureFlowModel, pe_mode=pe_mode)
    accurate = model(x, t, cond)
    low = model.convert_to(torch.bfloat16)(x, t, cond)
    assert low.dtype == torch.float32
    assert 0 < (low - accurate).norm() / accurate.norm() < 0.03


def test_training_under_autocast_reaches_every_parameter() -> None:
    model = randomised(SLatFlowModel, use_checkpoint=True).train()
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x, t, cond)
    out.feats.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_checkpointing_changes_no_gradient() -> None:
    x, t, cond = random_voxels([20, 15], 8), torch.tensor([1.0, 700.0]), torch.randn(2, 5, 20)
    gradients = []
    for use_checkpoint in (False, True):
        model = randomised(SLatFlowModel, use_checkpoint=use_checkpoint).train()
        model(x, t, cond).feats.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("cls", [SparseStructureFlowModel, SLatFlowModel])
def test_unknown_and_missing_arguments_are_named(cls: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="no argument patch_size"):
        cls(**TINY[cls.__name__] | {"patch_size": 1})
    with pytest.raises(InvalidArgumentError, match="needs resolution"):
        cls(**{k: v for k, v in TINY[cls.__name__].items() if k != "resolution"})


def test_inputs_that_do_not_fit_are_refused(sparse_model: SLatFlowModel) -> None:
    x, t, cond = random_voxels([20], 8), torch.tensor([300.0]), torch.randn(1, 5, 20)
    with pytest.raises(InvalidArgumentError, match=r"4 channels.*takes 8"):
        sparse_model(random_voxels([20], 4), t, cond)
    with pytest.raises(InvalidArgumentError, match=r"7 channels.*built for 20"):
        sparse_model(x, t, torch.zeros(1, 5, 7))
    with pytest.raises(InvalidArgumentError, match="2 items, x 1"):
        sparse_model(x, t, cond.repeat(2, 1, 1))
    with pytest.raises(InvalidArgumentError, match="a time an item"):
        sparse_model(x, t.repeat(2), cond)
    with pytest.raises(InvalidArgumentError, match="expected \\[B, 2, 4, 4, 4\\]"):
        randomised(SparseStructureFlowModel)(torch.zeros(1, 2, 3, 3, 3), t, cond)
    with pytest.raises(InvalidArgumentError, match="pe_mode"):
        SLatFlowModel(**{**TINY["SLatFlowModel"], "pe_mode": "none"})
