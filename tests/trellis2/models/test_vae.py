from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trellis2.sparse.voxels import random_voxels
from trellis2.errors import InvalidArgumentError
from trellis2.models import (
    MODELS,
    FlexiDualGridVaeDecoder,
    SparseStructureDecoder,
    SparseStructureEncoder,
    SparseUnetVaeDecoder,
)
from trellis2.sparse import SparseTensor

from .configs import LOW_PRECISION, TINY


def randomised(name: str, **overrides: Any) -> Any:
    torch.manual_seed(3)
    model = MODELS[name](**{**TINY[name], **overrides}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def dual_grid() -> tuple[SparseTensor, SparseTensor]:
    x = random_voxels([60, 40], 3, size=10)
    return x.replace(x.feats.sigmoid()), x.replace(x.feats > 0)


def free(z: SparseTensor) -> SparseTensor:
    """The latent without memory of its encoder's voxels."""
    z = z.replace(z.feats)
    z.clear_spatial_cache()
    return z


@torch.no_grad()
def test_texture_decoder_restores_the_encoders_voxels() -> None:
    x = random_voxels([60, 40], 6, size=10)
    z, mean, logvar = randomised("SparseUnetVaeEncoder")(x, return_raw=True)
    assert z.scale == 4
    assert mean.shape == logvar.shape == z.feats.shape
    assert torch.equal(z.feats, mean)
    y = randomised("SparseUnetVaeDecoder")(z.replace(torch.randn_like(z.feats)))
    assert torch.equal(y.coords, x.coords)
    assert y.shape == (2, 6)
    with pytest.raises(InvalidArgumentError, match="subdivision mask"):
        randomised("SparseUnetVaeDecoder")(free(z))


@torch.no_grad()
def test_sampling_the_posterior_spreads_around_the_mean() -> None:
    x = random_voxels([60], 6, size=10)
    encoder = randomised("SparseUnetVaeEncoder")
    z, mean, logvar = encoder(x, sample_posterior=True, return_raw=True)
    scaled = (z.feats - mean) / torch.exp(logvar / 2)
    assert 0.5 < scaled.std() < 1.5


@torch.no_grad()
def test_free_decoding_follows_the_logits_and_guides_the_texture() -> None:
    z = free(randomised("FlexiDualGridVaeEncoder")(*dual_grid()))
    decoder: FlexiDualGridVaeDecoder = randomised("FlexiDualGridVaeDecoder")
    h, _, subs = decoder.decode(z)
    assert len(subs) == 2
    assert len(subs[1].coords) == int((subs[0].feats > 0).sum())
    assert len(h.coords) == int((subs[1].feats > 0).sum())
    assert torch.equal(decoder.upsample(z, 1), subs[1].coords)
    assert torch.equal(decoder.upsample(z, 2), h.coords)
    texture = randomised("SparseUnetVaeDecoder")(free(z), guide_subs=subs)
    assert torch.equal(texture.coords, h.coords)
    vertices, _, weights = decoder.dual_grid(h)
    assert vertices.feats.min() > -0.5
    assert vertices.feats.max() < 1.5
    assert (weights.feats > 0).all()


@torch.no_grad()
def test_the_texture_decoder_shares_the_shape_decoders_voxels() -> None:
    z = free(randomised("FlexiDualGridVaeEncoder")(*dual_grid()))
    decoder, texture = randomised("FlexiDualGridVaeDecoder"), randomised("SparseUnetVaeDecoder")
    h, _, subs = decoder.decode(z)
    bare = [sub.replace(sub.feats) for sub in subs]
    shared, alone = texture(free(z), guide_subs=subs), texture(free(z), guide_subs=bare)
    assert torch.equal(shared.coords, alone.coords)
    assert torch.equal(shared.feats, alone.feats)
    assert shared.scale == alone.scale
    assert shared.scale_cache is h.scale_cache
    # Changed by hand, or other voxels: what they led to before no longer counts.
    subs[1].feats = -subs[1].feats
    turned = texture(free(z), guide_subs=subs)
    assert torch.equal(turned.feats, texture(free(z), guide_subs=[s.replace(s.feats) for s in subs]).feats)
    assert len(turned.coords) == int((subs[1].feats > 0).sum())
    moved = SparseTensor(z.feats, z.coords + torch.tensor([0, 1, 0, 0], dtype=torch.int32), scale=z.scale)
    assert not torch.equal(texture(moved, guide_subs=bare[:1] + subs[1:]).coords, turned.coords)


@torch.no_grad()
def test_meshes_lie_in_the_unit_cube_and_follow_the_resolution() -> None:
    z = free(randomised("FlexiDualGridVaeEncoder")(*dual_grid()))
    decoder: FlexiDualGridVaeDecoder = randomised("FlexiDualGridVaeDecoder")
    meshes, subs = decoder(z, return_subs=True)
    h, _, _ = decoder.decode(free(z))
    assert len(meshes) == 2
    assert [len(m.vertices) for m in meshes] == h.lengths
    assert len(subs) == 2
    first = h.coords[0, 1:] + decoder.dual_grid(h)[0].feats[0]
    torch.testing.assert_close(meshes[0].vertices[0], first / 16 - 0.5)
    finer = decoder(free(z), resolution=32)[0]
    torch.testing.assert_close(finer.vertices[0], first / 32 - 0.5)
    assert torch.equal(decoder(free(z))[0].vertices, meshes[0].vertices), (
        "a call leaves the decoder as it was"
    )


def test_shape_training_is_aligned_with_the_truth_and_reaches_every_parameter() -> None:
    vertices, flags = dual_grid()
    encoder = randomised("FlexiDualGridVaeEncoder").train()
    decoder = randomised("FlexiDualGridVaeDecoder").train()
    z, mean, logvar = encoder(vertices, flags, sample_posterior=True, return_raw=True)
    meshes, predicted, logits, truths, subs = decoder(z, flags)
    assert torch.equal(predicted.coords, vertices.coords)
    assert len(meshes) == 2
    assert [t.shape for t in truths] == [s.feats.shape for s in subs]
    assert int(truths[-1].sum()) == len(vertices.coords)
    assert decoder(z)[0] == []
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    loss = bce(logits.feats, flags.feats.float()) + (predicted.feats - vertices.feats).square().mean()
    loss = loss + sum(bce(s.feats, t.float()) for s, t in zip(subs, truths, strict=True))
    loss = loss + sum(m.vertices.square().mean() for m in meshes)
    loss = loss + (mean.square() + logvar.exp() - logvar).mean()
    loss.backward()
    for model in (encoder, decoder):
        assert all(
            p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters()
        )


def test_block_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for use_checkpoint in (False, True):
        args = {"block_args": [{"use_checkpoint": use_checkpoint}] * 3}
        encoder = randomised("SparseUnetVaeEncoder", **args).train()
        decoder = randomised("SparseUnetVaeDecoder", **args).train()
        decoder(encoder(random_voxels([60], 6, size=10))).feats.square().mean().backward()
        gradients.append([p.grad for m in (encoder, decoder) for p in m.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@torch.no_grad()
@pytest.mark.parametrize("name", ["SparseStructureEncoder", "SparseStructureDecoder"])
def test_dense_vae_shapes_and_16_bit(name: str) -> None:
    model = randomised(name)
    x = torch.randn(2, 2, 4, 4, 4) if "Decoder" in name else (torch.randn(2, 1, 16, 16, 16) > 0).float()
    accurate = model(x)
    assert accurate.shape == ((2, 1, 16, 16, 16) if "Decoder" in name else (2, 2, 4, 4, 4))
    low = model.convert_to(torch.float16)(x)
    assert low.dtype == torch.float32
    assert 0 < (low - accurate).norm() / accurate.norm() < 0.02


@torch.no_grad()
def test_group_norm_is_an_option_of_the_outer_layer() -> None:
    args = {**TINY["SparseStructureDecoder"], "channels": [64, 32], "norm_type": "group"}
    model = SparseStructureDecoder(**args)
    assert model(torch.randn(1, 2, 2, 2, 2)).shape == (1, 1, 4, 4, 4)
    with pytest.raises(InvalidArgumentError, match="norm_type"):
        SparseStructureEncoder(**{**TINY["SparseStructureEncoder"], "norm_type": "batch"})


@torch.no_grad()
def test_pieces_of_the_voxelwise_mlp_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from trellis2.models import sparse_blocks

    block = sparse_blocks.SparseConvNeXtBlock3d(8)
    x = random_voxels([100], 8)
    whole = block(x)
    monkeypatch.setattr(sparse_blocks, "_MLP_ROWS", {"cpu": 7})
    torch.testing.assert_close(block(x).feats, whole.feats)


def test_arguments_that_cannot_work_are_refused() -> None:
    z = free(random_voxels([5], 4))
    texture = randomised("SparseUnetVaeDecoder")
    shape = randomised("FlexiDualGridVaeDecoder")
    with pytest.raises(InvalidArgumentError, match="3 channels, this decoder takes 4"):
        shape(random_voxels([5], 3))
    with pytest.raises(InvalidArgumentError, match="1 guide_subs for 2"):
        texture(z, guide_subs=[z])
    with pytest.raises(InvalidArgumentError, match="predicts no subdivisions"):
        texture(z, return_subs=True)
    with pytest.raises(InvalidArgumentError, match="predicts its subdivisions"):
        SparseUnetVaeDecoder(**{**TINY["SparseUnetVaeDecoder"], "pred_subdiv": True})(z, guide_subs=[z, z])
    with pytest.raises(InvalidArgumentError, match="upsample_times is 3"):
        shape.upsample(z, 3)
    with pytest.raises(InvalidArgumentError, match="block_type has 2 entries"):
        randomised("SparseUnetVaeDecoder", block_type=["SparseConvNeXtBlock3d"] * 2)
    with pytest.raises(InvalidArgumentError, match="'Nonsense'"):
        randomised("SparseUnetVaeDecoder", block_type=["Nonsense"] * 3)
    with pytest.raises(InvalidArgumentError, match="multiple of 8"):
        randomised("SparseUnetVaeDecoder", model_channels=[30, 16, 8])


def test_every_class_has_a_low_precision_config() -> None:
    assert LOW_PRECISION.keys() == TINY.keys() == {cls.__name__ for cls in MODELS.values()}
