"""Writes a pipeline folder in the published layout: all models, random weights, tiny sizes.

Random decoders predict either nearly no voxels or nearly all, so occupancy and subdivision biases are set to
leave a few at each level: every stage is non-empty and fast.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trellis2.conditioning.naf import NAF
from trellis2.models import model_class, save_pretrained

LATENT, COND, WIDTH = 8, 24, 16
SS_LATENT = 4
OCCUPIED_QUANTILE = 0.9995  # of the 64³ cells: about 130 voxels

FLOW: dict[str, Any] = {
    "model_channels": WIDTH,
    "cond_channels": COND,
    "num_blocks": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "pe_mode": "rope",
    "share_mod": True,
    "initialization": "scaled",
    "qk_rms_norm": True,
    "qk_rms_norm_cross": True,
    "dtype": "bfloat16",
}
UNET: dict[str, Any] = {
    "model_channels": [32, 16, 16, 8, 8],
    "latent_channels": LATENT,
    "num_blocks": [1, 0, 0, 0, 0],
    "block_type": ["SparseConvNeXtBlock3d"] * 5,
    "up_block_type": ["SparseResBlockC2S3d"] * 4,
    "block_args": [{}] * 5,
    "use_fp16": True,
}
ENCODER: dict[str, Any] = {
    "model_channels": [8, 8, 16, 16, 32],
    "latent_channels": LATENT,
    "num_blocks": [0, 0, 0, 0, 1],
    "block_type": ["SparseConvNeXtBlock3d"] * 5,
    "down_block_type": ["SparseResBlockS2C3d"] * 4,
    "block_args": [{}] * 5,
    "use_fp16": True,
}


def slat_flow(in_channels: int) -> tuple[str, dict[str, Any]]:
    return "SLatFlowModel", {"resolution": 32, "in_channels": in_channels, "out_channels": LATENT, **FLOW}


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse_structure_flow_model": (
        "SparseStructureFlowModel",
        {"resolution": 16, "in_channels": SS_LATENT, "out_channels": SS_LATENT, **FLOW},
    ),
    "sparse_structure_decoder": (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": SS_LATENT,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [8, 8, 4],
            "use_fp16": True,
        },
    ),
    "shape_slat_flow_model_512": slat_flow(LATENT),
    "shape_slat_flow_model_1024": slat_flow(LATENT),
    "shape_slat_decoder": ("FlexiDualGridVaeDecoder", {"resolution": 256, **UNET}),
    "tex_slat_flow_model_512": slat_flow(2 * LATENT),
    "tex_slat_flow_model_1024": slat_flow(2 * LATENT),
    "tex_slat_decoder": ("SparseUnetVaeDecoder", {"out_channels": 6, "pred_subdiv": False, **UNET}),
}
TEXTURING_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "shape_slat_encoder": ("FlexiDualGridVaeEncoder", ENCODER),
}
SHORT = {"steps": 2, "guidance_strength": 3.0, "guidance_rescale": 0.5, "guidance_interval": [0.6, 1.0]}


def sampler(**params: Any) -> dict[str, Any]:
    return {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {**SHORT, "rescale_t": 3.0, **params},
    }


def random_model(name: str, args: dict[str, Any], seed: int) -> Any:
    """A model with every parameter random (initialisations zero some), scaled to keep outputs alive."""
    torch.manual_seed(seed)
    model = model_class(name)(**args)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim > 1:
                fan_in = p[0].numel()
                p.copy_(torch.randn(p.shape) / fan_in**0.5)
            elif "norm" not in key:
                p.copy_(torch.randn(p.shape) * 0.02)
        for key, module in model.named_modules():
            if key.endswith("to_subdiv") and isinstance(module, nn.Linear):
                module.weight.mul_(0.1)
                module.bias.copy_(torch.tensor([0.6, 0.6, 0.3, 0.3, -0.6, -0.6, -0.6, -0.6]))
        if name == "SparseStructureDecoder":
            latent = torch.randn(2, SS_LATENT, 16, 16, 16)
            model.out_layer[2].bias.sub_(torch.quantile(model(latent).flatten(), OCCUPIED_QUANTILE))
    return model


def write_pixel_aligned(plain: Path, root: Path) -> Path:
    """The same folder as pixel-aligned weights: flows with features, stored in float32, and NAF.

    `pipeline.json` is the single-view one, `pipeline_mv.json` the multi-view one.
    """
    folder = root / "pixel-aligned"
    shutil.copytree(plain, folder)
    args = json.loads((folder / "pipeline.json").read_text())["args"]
    del args["models"]["tex_slat_flow_model_512"]
    args["image_cond_model"] = {"name": "SomeEncoderOfTheirs", "args": {"model_name": "nowhere"}}
    for seed, key in enumerate(key for key in args["models"] if "flow" in key):
        name, arguments = MODELS[key]
        extra: dict[str, Any] = {"image_attn_mode": "proj"}
        if name == "SLatFlowModel":
            name, extra["proj_in_channels"] = "ElasticSLatFlowModel", 2 * COND
        arguments = {**arguments, **extra}
        model = random_model(name, arguments, 20 + seed)
        save_pretrained(model, folder / "ckpts" / key, arguments)
        if "structure" in key:
            tensors = {k: p.detach().float() for k, p in model.named_parameters()}
            save_file({**tensors, "rope_phases": model.rope_phases}, folder / "ckpts" / f"{key}.safetensors")
    thin_out(folder / "ckpts" / "shape_slat_decoder.safetensors")
    write_dinov3(folder / "ckpts" / "dinov3-16", patch_size=16)
    torch.manual_seed(5)
    torch.save(NAF(dim=32, heads=4).state_dict(), folder / "ckpts" / "naf_release.pth")
    for file, name in (
        ("pipeline.json", "Pixal3DImageTo3DPipeline"),
        ("pipeline_mv.json", "Pixal3DMVImageTo3DPipeline"),
    ):
        (folder / file).write_text(json.dumps({"name": name, "args": args}, indent=2), encoding="utf-8")
    return folder


def thin_out(decoder: Path) -> None:
    """Make a stored shape decoder predict two children or three of a voxel instead of four or five."""
    tensors = load_file(decoder)
    for key, value in tensors.items():
        if key.endswith("to_subdiv.bias"):
            tensors[key] = torch.tensor([0.6, 0.3, -0.3, -0.6, -0.6, -0.6, -0.6, -0.6]).to(value)
    save_file(tensors, decoder)


def write_dinov3(folder: Path, patch_size: int = 128) -> None:
    """A DINOv3 ViT of width 24 in transformers' own layout."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(7)
    config = DINOv3ViTConfig(
        hidden_size=COND,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=patch_size,
        num_register_tokens=4,
        image_size=512,
    )
    DINOv3ViTModel(config).save_pretrained(folder)


def write_checkpoint(root: Path) -> Path:
    """The pipeline folder, and beside it (as another repository would be) the sparse-structure decoder."""
    folder, other = root / "pipeline", root / "other-repo"
    paths = {}
    for seed, (key, (name, args)) in enumerate({**MODELS, **TEXTURING_MODELS}.items()):
        place = other if key == "sparse_structure_decoder" else folder
        save_pretrained(random_model(name, args, seed), place / "ckpts" / key, args)
        paths[key] = f"ckpts/{key}" if place is folder else str(other / "ckpts" / key)
    write_dinov3(folder / "ckpts" / "dinov3")
    statistics = {"mean": [0.1 * i for i in range(LATENT)], "std": [1.0 + 0.1 * i for i in range(LATENT)]}
    common = {
        "tex_slat_sampler": sampler(guidance_strength=1.0, guidance_rescale=0.0),
        "shape_slat_normalization": statistics,
        "tex_slat_normalization": statistics,
        "image_cond_model": {"name": "DinoV3FeatureExtractor", "args": {"model_name": "ckpts/dinov3"}},
        "rembg_model": {"name": "GrabCutMatting", "args": {}},
    }
    image_to_3d = {
        "models": {key: paths[key] for key in MODELS},
        "sparse_structure_sampler": sampler(rescale_t=5.0),
        "shape_slat_sampler": sampler(),
        **common,
    }
    texturing_names = (
        "shape_slat_encoder",
        "tex_slat_decoder",
        "tex_slat_flow_model_512",
        "tex_slat_flow_model_1024",
    )
    texturing = {"models": {key: paths[key] for key in texturing_names}, **common}
    for file, name, args in (
        ("pipeline.json", "Trellis2ImageTo3DPipeline", image_to_3d),
        ("texturing_pipeline.json", "Trellis2TexturingPipeline", texturing),
    ):
        (folder / file).write_text(json.dumps({"name": name, "args": args}, indent=2), encoding="utf-8")
    return folder
