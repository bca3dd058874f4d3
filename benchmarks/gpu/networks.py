"""The published networks with random weights, made on the device, and what their arithmetic amounts to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from trellis2.models import FlowTransformer, Model
from trellis2.models.loading import build

FLOW: dict[str, Any] = {
    "model_channels": 1536,
    "cond_channels": 1024,
    "num_blocks": 30,
    "num_heads": 12,
    "mlp_ratio": 5.3334,
    "pe_mode": "rope",
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
    "dtype": "bfloat16",
}
_DECODER: dict[str, Any] = {
    "model_channels": [1024, 512, 256, 128, 64],
    "latent_channels": 32,
    "num_blocks": [4, 16, 8, 4, 0],
    "block_type": ["SparseConvNeXtBlock3d"] * 5,
    "up_block_type": ["SparseResBlockC2S3d"] * 4,
    "block_args": [{}] * 5,
    "use_fp16": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "structure flow": {
        "name": "SparseStructureFlowModel",
        "args": {**FLOW, "resolution": 16, "in_channels": 8, "out_channels": 8},
    },
    "shape flow": {
        "name": "SLatFlowModel",
        "args": {**FLOW, "resolution": 64, "in_channels": 32, "out_channels": 32},
    },
    "texture flow": {
        "name": "SLatFlowModel",
        "args": {**FLOW, "resolution": 64, "in_channels": 64, "out_channels": 32},
    },
    "structure decoder": {
        "name": "SparseStructureDecoder",
        "args": {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 2,
            "num_res_blocks_middle": 2,
            "channels": [512, 128, 32],
            "use_fp16": True,
        },
    },
    "shape decoder": {"name": "FlexiDualGridVaeDecoder", "args": {**_DECODER, "resolution": 1024}},
    "texture decoder": {
        "name": "SparseUnetVaeDecoder",
        "args": {**_DECODER, "out_channels": 6, "pred_subdiv": False},
    },
}


def network(kind: str, dtype: torch.dtype | None = None, device: str = "cuda", **overrides: Any) -> Any:
    """A network on a device, in evaluation mode; its weights are made there."""
    model = build(CONFIGS[kind], device="meta", **overrides)
    if dtype is not None:
        model.convert_to(dtype)
    fill(model, torch.device(device))
    return model.eval()


@torch.no_grad()
def fill(model: Model, device: torch.device) -> None:
    """Random weights that keep activations near one: matrices by their fan-in, norms near one."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            if value.ndim > 1 and "gamma" not in name:
                value.normal_(std=1 / math.sqrt(value[0].numel()))
            elif name == "modulation":
                value.normal_(std=0.1)
            elif name == "bias":
                value.normal_(std=0.02)
            else:
                value.fill_(1.0)
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    model.reset_buffers(device)


def flow_flops(model: FlowTransformer, tokens: int, context: int) -> float:
    """Of one forward pass over one item, keys and values of the context at hand; a one-token context needs no
    queries.
    """
    c, blocks = model.config.model_channels, model.config.num_blocks
    hidden = model.blocks[0].mlp.mlp[0].out_features  # type: ignore[index,union-attr]
    cross = 2 * c * c + 2 * context * c if context > 1 else 0
    per_token = 4 * c * c + cross + 2 * c * hidden + 2 * tokens * c
    ends = c * (model.config.in_channels + model.config.out_channels)
    return 2.0 * tokens * (blocks * per_token + ends)
