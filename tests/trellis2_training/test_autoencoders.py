"""What the autoencoder stages start from and are taught by."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from trellis2_training.config import MINI, MiniConfig
from trellis2_training.data.batches import TableBank, VoxelPool, blocks_of, joined
from trellis2_training.data.voxelize import voxelize
from trellis2_training.data_dependent_init import means_by_level, start_decoder, start_encoder, start_quiet
from trellis2_training.runtime import Runtime
from trellis2_training.stages import autoencoders
from trellis2_training.stages.autoencoders import (
    MixedTexture,
    ShapeVae,
    TextureVae,
    VoxelVae,
    mixing_shares,
    repainted,
    surface_by_level,
)

from trellis2.sparse import SparseTensor


def test_a_young_texture_autoencoder_already_tells_colours(bank: TableBank) -> None:
    """As it is born it tells none; fitted, it explains most of their variance before the first step."""
    torch.manual_seed(0)
    pool = VoxelPool(bank, 128, least_objects=6)
    pool.cut_into(32)
    truth = pool.batch(60_000).attributes
    encoder, decoder = MINI.build("tex_enc"), MINI.build("tex_dec")

    def unexplained() -> float:
        with torch.no_grad():
            gap = decoder(encoder(truth)).feats[:, :3] - truth.feats[:, :3]
        return float(gap.square().mean() / truth.feats[:, :3].var())

    assert unexplained() > 0.9
    contents = means_by_level(truth, 4)
    z = start_encoder(encoder, truth, contents)
    torch.testing.assert_close(torch.cov(z.feats.T), torch.eye(16), atol=2e-2, rtol=0)
    torch.testing.assert_close(z.feats.mean(0), torch.zeros(16), atol=1e-2, rtol=0)
    start_decoder(decoder, z, contents, truth.feats)
    assert unexplained() < 0.4


def test_surfaces_by_level_tell_place_and_turn(bank: TableBank) -> None:
    voxels = VoxelPool(bank, 32, least_objects=2).batch(20_000)
    flags = voxels.intersected.feats.float()
    levels = surface_by_level(voxels.vertices, flags, 2)
    torch.testing.assert_close(levels[0][:, :3], voxels.vertices.feats - 0.5, atol=2e-3, rtol=0)
    coords = voxels.vertices.coords
    parents, rows = torch.unique(
        torch.cat([coords[:, :1], coords[:, 1:] >> 1], 1), dim=0, return_inverse=True
    )
    mine = rows == 5
    place = (coords[mine, 1:] + voxels.vertices.feats[mine]).mean(0) / 2 - parents[5, 1:] - 0.5
    torch.testing.assert_close(levels[1][5], torch.cat([place, flags[mine].mean(0)]), atol=2e-3, rtol=0)


def test_repainting_changes_brightness_and_channels_alone(bank: TableBank) -> None:
    before = VoxelPool(bank, 32, least_objects=2).batch(20_000).attributes
    after = repainted(before, torch.Generator().manual_seed(0))
    assert torch.equal(after.feats[:, 3:], before.feats[:, 3:])
    for item in range(before.batch_size):
        mine = before.coords[:, 0] == item
        old, new = ((x.feats[mine, :3] + 1) / 2 for x in (before, after))
        dark = (new.max(1).values < 1) & (old.min(1).values > 0.02)  # not clipped
        ratio = new[dark].sort(1).values / old[dark].sort(1).values
        assert torch.allclose(ratio, ratio.flatten()[:1].expand_as(ratio), rtol=1e-3)
        assert 0.3 <= float(ratio.flatten()[0]) <= 2.02


def test_two_fifths_of_the_items_stay_pure() -> None:
    shares = mixing_shares(2000, torch.Generator().manual_seed(0))
    assert float((shares == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    assert float(shares[shares > 0].mean()) == pytest.approx(0.5, abs=0.05)


def test_mixtures_lie_between_both_colourings(bank: TableBank, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = MINI.build("tex_enc").eval().requires_grad_(False)
    stage = MixedTexture(MINI, bank, Runtime(torch.device("cpu")), encoder, budget=4_000, objects=2)
    assert list(stage.networks) == ["tex_dec"]
    voxels = VoxelPool(bank, 32, least_objects=2).batch(4_000)
    first = voxels.attributes
    second = first.replace(-first.feats)
    seen: list[SparseTensor] = []
    monkeypatch.setattr(autoencoders, "repainted", lambda *_: second)
    monkeypatch.setattr(autoencoders, "_PURE", 0.0)
    monkeypatch.setattr(autoencoders, "texture_losses", lambda _, z, truth: seen.extend((z, truth)))
    stage.terms(voxels)
    z, truth = seen
    ends = encoder(first), encoder(second)
    for item in range(first.batch_size):
        mine = truth.coords[:, 0] == item
        share = float(((first.feats - truth.feats) / (2 * first.feats))[mine, 5].mean())  # alpha is 1
        assert 0 < share < 1
        torch.testing.assert_close(truth.feats[mine], first.feats[mine] * (1 - 2 * share), atol=1e-5, rtol=0)
        mine = z.coords[:, 0] == item
        mixed = torch.lerp(ends[0].feats[mine], ends[1].feats[mine], share)
        torch.testing.assert_close(z.feats[mine], mixed, atol=1e-4, rtol=1e-4)


def test_a_quiet_start_has_little_noise() -> None:
    for projection in (nn.Linear(8, 12), nn.Conv3d(8, 12, 3)):
        before = projection.weight[:6].clone()
        start_quiet(projection)
        assert torch.equal(projection.weight[:6], before)
        assert bool((projection.bias[6:] == -6).all())


def test_means_by_level_are_means_over_blocks(bank: TableBank) -> None:
    x = VoxelPool(bank, 32, least_objects=4).batch(20_000).attributes
    for halvings, means in enumerate(means_by_level(x, 3)):
        blocks = torch.cat([x.coords[:, :1], x.coords[:, 1:] >> halvings], 1)
        unique, rows = torch.unique(blocks, dim=0, return_inverse=True)  # sorted as parents are
        expected = torch.stack([x.feats[rows == i].mean(0) for i in range(len(unique))])
        torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-4)


def test_the_pool_brings_one_new_object_a_batch(bank: TableBank) -> None:
    pool = VoxelPool(bank, 32, least_objects=4)
    assert pool.batch(budget=10**9).vertices.batch_size == len(pool.objects) == 4, "a young pool, whole"
    pool.batch(budget=10**9)
    assert len(pool.objects) == 5
    assert pool.batch(budget=1).vertices.batch_size == 1, "one block at least, however large"
    small = VoxelPool(bank, 32, most_voxels=1, least_objects=1)
    for _ in range(3):
        small.batch(budget=1)
    assert len(small.objects) == 1, "the oldest leave when there are too many voxels"


def test_blocks_hold_every_voxel_once(bank: TableBank) -> None:
    whole = voxelize(bank.tables[0], 64)
    blocks = blocks_of(whole, 16)
    assert len(blocks) > 1
    for block in blocks:
        assert len(torch.unique(block.coords // 16, dim=0)) == 1
    again = blocks_of(joined(blocks), 64)
    assert len(again) == 1
    for name in ("coords", "vertices", "intersected", "attributes"):
        assert torch.equal(getattr(again[0], name), getattr(whole, name))


def test_batches_of_blocks_count_from_their_corners(bank: TableBank) -> None:
    pool = VoxelPool(bank, 64, least_objects=3)
    pool.cut_into(16)
    voxels = pool.batch(5_000)
    assert int(voxels.vertices.coords[:, 1:].max()) < 16
    assert voxels.vertices.batch_size == int(voxels.vertices.coords[-1, 0]) + 1 > 3
    assert bool((voxels.attributes.feats[:, 5] == 1).all()), "only colours change their order"


@pytest.mark.parametrize(("kind", "term"), [(ShapeVae, "subdivision"), (TextureVae, "l1")])
def test_autoencoders_learn_from_one_batch(
    config: MiniConfig, bank: TableBank, runtime: Runtime, kind: type[VoxelVae], term: str
) -> None:
    torch.manual_seed(0)
    stage = kind(config, bank, runtime, budget=3_000)
    parameters = [p for network in stage.networks.values() for p in network.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    batch = stage.batch(0.0)
    history = []
    for _ in range(25):
        terms = stage.terms(batch)
        loss = torch.stack([v for k, v in terms.items() if not k.startswith("_")]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({k: float(v.detach()) for k, v in terms.items()})
    assert history[-1][term] < 0.8 * history[0][term]
    assert all(p.grad is not None for p in parameters)
