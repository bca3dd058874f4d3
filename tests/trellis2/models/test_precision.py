from __future__ import annotations

import pytest
import torch

from trellis2.models.loading import build

from .configs import LOW_PRECISION, TINY

ENDS = ("input_layer", "out_layer", "from_latent", "output_layer", "to_latent")
OUTSIDE = ("t_embedder", "adaLN_modulation", *ENDS)
NEVER_LOW = ("norm", "gamma", "modulation")


@pytest.mark.parametrize("name", TINY)
def test_only_matrices_and_convolutions_of_the_torso_are_16_bit(name: str) -> None:
    model = build({"name": name, "args": {**TINY[name], **LOW_PRECISION[name]}})
    low = model.dtype
    assert low != torch.float32
    for key, parameter in model.named_parameters():
        stays = key.startswith(OUTSIDE) or any(part in key for part in NEVER_LOW)
        assert parameter.dtype == (torch.float32 if stays else low), key
    model.convert_to(torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", TINY)
def test_fresh_weights_are_finite_and_the_head_is_as_specified(name: str) -> None:
    torch.manual_seed(0)
    model = build({"name": name, "args": TINY[name]})
    assert all(p.isfinite().all() for p in model.parameters())
    weights = dict(model.named_parameters())
    if "Flow" in name:
        assert not weights["out_layer.weight"].any()
        assert not weights["adaLN_modulation.1.weight"].any()
        assert weights["t_embedder.mlp.0.weight"].std().item() == pytest.approx(0.02, rel=0.1)
        qkv = weights["blocks.0.self_attn.to_qkv.weight"]
        assert qkv.std().item() == pytest.approx((2 / (5 * 48)) ** 0.5, rel=0.1)
        out = weights["blocks.1.mlp.mlp.2.weight"]
        assert out.std().item() == pytest.approx(1 / (5 * 2 * 48) ** 0.5, rel=0.1)
        assert weights["blocks.0.modulation"].std().item() == pytest.approx(48**-0.5, rel=0.3)
    else:
        assert not any(p.any() for key, p in weights.items() if ".conv2." in key)


def test_vanilla_weights() -> None:
    args = {**TINY["SLatFlowModel"], "initialization": "vanilla", "share_mod": False}
    weights = dict(build({"name": "SLatFlowModel", "args": args}).named_parameters())
    bound = (6 / (48 + 144)) ** 0.5
    assert weights["blocks.0.self_attn.to_qkv.weight"].abs().max().item() == pytest.approx(bound, rel=0.05)
    assert not weights["blocks.1.adaLN_modulation.1.weight"].any()
