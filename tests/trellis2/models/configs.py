"""Tiny networks of every published class, by the arguments of their configs."""

from __future__ import annotations

from typing import Any

_FLOW: dict[str, Any] = {
    "model_channels": 48,
    "cond_channels": 20,
    "num_blocks": 2,
    "num_heads": 3,
    "mlp_ratio": 5.3334,
    "pe_mode": "rope",
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
}
_DOWN: dict[str, Any] = {
    "model_channels": [8, 16, 32],
    "latent_channels": 4,
    "num_blocks": [0, 1, 1],
    "block_type": ["SparseConvNeXtBlock3d"] * 3,
    "down_block_type": ["SparseResBlockS2C3d"] * 2,
    "block_args": [{}, {}, {}],
}
_UP: dict[str, Any] = {
    "model_channels": [32, 16, 8],
    "latent_channels": 4,
    "num_blocks": [1, 1, 0],
    "block_type": ["SparseConvNeXtBlock3d"] * 3,
    "up_block_type": ["SparseResBlockC2S3d"] * 2,
    "block_args": [{}, {}, {}],
}
_DENSE: dict[str, Any] = {"latent_channels": 2, "num_res_blocks": 1, "num_res_blocks_middle": 1}

TINY: dict[str, dict[str, Any]] = {
    "SparseStructureFlowModel": {**_FLOW, "resolution": 4, "in_channels": 2, "out_channels": 2},
    "SLatFlowModel": {**_FLOW, "resolution": 16, "in_channels": 8, "out_channels": 4},
    "SparseStructureEncoder": {**_DENSE, "in_channels": 1, "channels": [4, 8, 16]},
    "SparseStructureDecoder": {**_DENSE, "out_channels": 1, "channels": [16, 8, 4]},
    "SparseUnetVaeEncoder": {**_DOWN, "in_channels": 6},
    "SparseUnetVaeDecoder": {**_UP, "out_channels": 6, "pred_subdiv": False},
    "FlexiDualGridVaeEncoder": _DOWN,
    "FlexiDualGridVaeDecoder": {**_UP, "resolution": 16},
}
LOW_PRECISION: dict[str, dict[str, Any]] = {
    name: {"dtype": "bfloat16"} if "Flow" in name else {"use_fp16": True} for name in TINY
}
