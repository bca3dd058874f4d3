"""What the autoencoder stages start from and are taught by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trellis2.training.autoencoders import (
    VoxelVaes,
    coarse_means,
    let_information_through,
    start_quiet,
    whiten,
)
from trellis2.training.config import MINI, MiniConfig
from trellis2.training.data import TableBank, VoxelPool
from trellis2.training.runtime import Runtime


def explained(features: Tensor, targets: Tensor) -> float:
    """Share of the targets' variance that a linear readout of the features explains."""
    known = torch.cat([features, torch.ones_like(features[:, :1])], 1).double()
    targets = targets.double()
    weights = torch.linalg.lstsq(known, targets, driver="gelsd").solution
    left = (targets - known @ weights).square().sum()
    return 1 - float(left / (targets - targets.mean(0)).square().sum())


def latents(encoder: nn.Module, voxels: object) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    projection: nn.Linear = encoder.to_latent  # type: ignore[assignment]
    hook = projection.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    with torch.no_grad():
        out = encoder(voxels)
    hook.remove()
    return seen[0], out.feats


def test_a_young_encoder_keeps_the_mean_colour(bank: TableBank) -> None:
    torch.manual_seed(0)
    truth = VoxelPool(bank, 64).batch(120_000, 12).attributes
    colours = coarse_means(truth, 4)[-1][:, :3]
    plain, opened = MINI.build("tex_enc"), MINI.build("tex_enc")
    let_information_through(opened)
    assert explained(latents(opened, truth)[0], colours) > explained(latents(plain, truth)[0], colours) + 0.15


def test_whitened_latents_are_centred_and_even(bank: TableBank) -> None:
    torch.manual_seed(0)
    truth = VoxelPool(bank, 64).batch(120_000, 12).attributes
    encoder = MINI.build("tex_enc")
    let_information_through(encoder)
    features, _ = latents(encoder, truth)
    whiten(encoder.to_latent, features)
    _, made = latents(encoder, truth)
    torch.testing.assert_close(made.mean(0), torch.zeros(16), atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.cov(made.T), torch.eye(16), atol=2e-2, rtol=0)


def test_a_quiet_start_has_little_noise() -> None:
    for projection in (nn.Linear(8, 12), nn.Conv3d(8, 12, 3)):
        before = projection.weight[:6].clone()
        start_quiet(projection)
        assert torch.equal(projection.weight[:6], before)
        assert bool((projection.bias[6:] == -6).all())


def test_coarse_means_are_means_over_blocks(bank: TableBank) -> None:
    x = VoxelPool(bank, 32).batch(20_000, 4).attributes
    for halvings, means in enumerate(coarse_means(x, 3), start=1):
        blocks = torch.cat([x.coords[:, :1], x.coords[:, 1:] >> halvings], 1)
        unique, rows = torch.unique(blocks, dim=0, return_inverse=True)  # sorted as parents are
        expected = torch.stack([x.feats[rows == i].mean(0) for i in range(len(unique))])
        torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-4)


def test_the_pool_brings_one_new_object_a_batch(bank: TableBank) -> None:
    pool = VoxelPool(bank, 32)
    assert pool.batch(budget=10**9, limit=4).vertices.batch_size == len(pool.objects) == 4, "a young pool"
    assert pool.batch(budget=10**9, limit=3).vertices.batch_size == 3
    assert len(pool.objects) == 5
    assert pool.batch(budget=1, limit=3).vertices.batch_size == 1, "one at least, however large"
    small = VoxelPool(bank, 32, most_voxels=1)
    for _ in range(3):
        small.batch(budget=1, limit=1)
    assert len(small.objects) == 1, "the oldest leave when there are too many voxels"


def test_both_autoencoders_learn_from_one_batch(
    config: MiniConfig, bank: TableBank, runtime: Runtime
) -> None:
    torch.manual_seed(0)
    stage = VoxelVaes(config, bank, runtime, budget=3_000)
    stage.schedule = ((1.0, 2),)
    parameters = [p for network in stage.networks.values() for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    batch = stage._batch(0.0)
    stage._whiten(batch)
    history = []
    for _ in range(25):
        terms = {**stage._shape(batch), **stage._texture(batch.attributes)}
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({k: float(v.detach()) for k, v in terms.items()})
    assert history[-1]["l1"] < 0.7 * history[0]["l1"]
    assert history[-1]["subdivision"] < history[0]["subdivision"]
    assert all(p.grad is not None for p in parameters)
