"""timm's copy of DINOv3 (ungated) as the folder that transformers loads.

timm fuses query, key and value and leaves their biases out, or keeps them in its `qkvb` copies; here they are
apart, and absent biases are zero.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HEAD_SIZE = 64
PATCH = 16
REGISTERS = 4

Arrays = dict[str, np.ndarray]

_TOP = {
    "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "attn.proj.weight": "attention.o_proj.weight",
    "attn.proj.bias": "attention.o_proj.bias",
    "gamma_1": "layer_scale1.lambda1",
    "gamma_2": "layer_scale2.lambda1",
    "mlp.fc1.weight": "mlp.up_proj.weight",
    "mlp.fc1.bias": "mlp.up_proj.bias",
    "mlp.fc2.weight": "mlp.down_proj.weight",
    "mlp.fc2.bias": "mlp.down_proj.bias",
}
_IN_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def convert(folder: Path, source: Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder` from timm's safetensors file."""
    from safetensors.numpy import load_file, save_file

    tensors = renamed(load_file(source))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(tensors), indent=1, sort_keys=True))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def renamed(tensors: Mapping[str, np.ndarray]) -> Arrays:
    """The tensors under transformers' names. Raises ValueError for a name that a DINOv3 ViT does not have."""
    result: Arrays = {}
    for name, value in tensors.items():
        inside = _IN_BLOCK.fullmatch(name)
        if name in _TOP:
            result[_TOP[name]] = value
        elif inside is None:
            raise ValueError(f"{name} {list(value.shape)} is no tensor of timm's DINOv3")
        else:
            layer, rest = f"layer.{inside[1]}.", inside[2]
            if rest in _BLOCK:
                result[layer + _BLOCK[rest]] = value
            elif rest == "attn.qkv.weight":
                result |= _split(layer, value, "weight")
            elif rest in ("attn.q_bias", "attn.v_bias"):
                result[f"{layer}attention.{rest[5]}_proj.bias"] = value
            elif rest != "attn.k_bias":  # DINOv3 trains none
                raise ValueError(f"{name} {list(value.shape)} is no tensor of timm's DINOv3")
    cls = result["embeddings.cls_token"]
    result["embeddings.mask_token"] = np.zeros_like(cls)  # used in training only
    width = cls.shape[-1]
    for number in range(_depth(result)):
        for kind in "qv":
            result.setdefault(f"layer.{number}.attention.{kind}_proj.bias", np.zeros(width, cls.dtype))
    return result


def _split(layer: str, fused: np.ndarray, leaf: str) -> Arrays:
    parts = np.split(fused, 3)
    return {
        f"{layer}attention.{kind}_proj.{leaf}": np.ascontiguousarray(part)
        for kind, part in zip("qkv", parts, strict=True)
    }


def _depth(tensors: Mapping[str, np.ndarray]) -> int:
    return sum(name.endswith(".layer_scale1.lambda1") for name in tensors)


def config_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The `config.json` of a DINOv3 ViT with these tensors."""
    width = tensors["embeddings.cls_token"].shape[-1]
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "hidden_size": width,
        "intermediate_size": tensors["layer.0.mlp.up_proj.weight"].shape[0],
        "num_hidden_layers": _depth(tensors),
        "num_attention_heads": width // HEAD_SIZE,
        "num_register_tokens": REGISTERS,
        "patch_size": PATCH,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "layer_norm_eps": 1e-05,
        "rope_theta": 100.0,
        "torch_dtype": "float32",
    }
