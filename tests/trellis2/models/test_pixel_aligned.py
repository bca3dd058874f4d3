"""Pixel-aligned flows: names, shapes and file lengths as published, and what their condition must be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trellis2.errors import CheckpointError, InvalidArgumentError
from trellis2.models import FlowTransformer, RecordedFlow, from_pretrained, save_pretrained
from trellis2.models.loading import build
from trellis2.nn.tokens import PixelTokens
from trellis2.samplers.guidance import Guidance, GuidedModel
from trellis2.sparse import SparseTensor

from .configs import TINY

KEYS = Path(__file__).parents[2] / "golden" / "checkpoint_keys.json.gz"
PLAIN: dict[str, Any] = json.loads(gzip.decompress(KEYS.read_bytes()))
# Checkpoint: class, parameters, bytes, tensors of the published file.
PUBLISHED = {
    "ss_flow_img_dit_1_3B_64_bf16": ("SparseStructureFlowModel", 1_339_411_976, 5_359_822_584, 701),
    "slat_flow_img2shape_dit_1_3B_512_bf16": ("ElasticSLatFlowModel", 1_386_671_648, 5_546_764_048, 700),
    "slat_flow_img2shape_dit_1_3B_1024_bf16": ("ElasticSLatFlowModel", 1_386_671_648, 5_546_764_048, 700),
    "slat_flow_imgshape2tex_dit_1_3B_1024_bf16": (
        "ElasticSLatFlowModel",
        1_386_720_800,
        5_546_960_656,
        700,
    ),
}


def arguments(checkpoint: str) -> dict[str, Any]:
    """The published config: TRELLIS.2's, with the features between the norms and the dtype."""
    plain = next(v for k, v in PLAIN.items() if k.endswith(checkpoint))["args"]
    extra: dict[str, Any] = {"image_attn_mode": "proj"}
    if checkpoint.startswith("slat"):
        extra["proj_in_channels"] = 2048
    args = {k: v for k, v in plain.items() if k != "dtype"}
    return {**args, **extra, "dtype": plain["dtype"]}


def renamed(key: str) -> str:
    before, inner, after = key.partition(".cross_attn.")
    return f"{before}{inner}cross_attn_block.{after}" if inner else key


@pytest.mark.parametrize("checkpoint", PUBLISHED)
def test_names_shapes_and_length_equal_the_published_file(checkpoint: str) -> None:
    cls, parameters, size, count = PUBLISHED[checkpoint]
    model = build({"name": cls, "args": arguments(checkpoint)}, device="meta")
    plain = next(v for k, v in PLAIN.items() if k.endswith(checkpoint))["tensors"]
    expected = {renamed(key): shape for key, (shape, *_) in plain.items()}
    features = 2048 if checkpoint.startswith("slat") else 1024
    for n in range(30):
        expected[f"blocks.{n}.cross_attn.proj_linear.weight"] = [1536, features]
        expected[f"blocks.{n}.cross_attn.proj_linear.bias"] = [1536]
    assert {name: list(p.shape) for name, p in model.named_parameters()} == expected
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert set(model.stored_dtypes().values()) == {torch.float32}
    assert model.get_parameter("blocks.3.cross_attn.proj_linear.weight").dtype == torch.bfloat16
    entries = {name: ("F32", shape) for name, shape in expected.items()}
    buffers = dict(model.named_buffers())
    if checkpoint.startswith("ss"):
        assert list(buffers["rope_phases"].shape) == [4096, 64]
        assert buffers["rope_phases"].dtype == torch.complex64
        entries["rope_phases"] = ("C64", [4096, 64])
    else:
        assert not buffers
    assert len(entries) == count
    assert file_length(entries) == size


def file_length(entries: dict[str, tuple[str, list[int]]]) -> int:
    """Bytes of a safetensors file: a compact header, widest dtype first and then by name, padded to 8."""
    widths, header, position = {"C64": 8, "F32": 4}, {}, 0
    for name in sorted(entries, key=lambda n: (-widths[entries[n][0]], n)):
        dtype, shape = entries[name]
        end = position + torch.Size(shape).numel() * widths[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + position


@pytest.mark.parametrize(("checkpoint", "size"), [(k, 503 if k.startswith("ss") else 535) for k in PUBLISHED])
def test_the_config_has_the_published_length(checkpoint: str, size: int) -> None:
    config = {"name": PUBLISHED[checkpoint][0], "args": arguments(checkpoint)}
    assert len(json.dumps(config, indent=4) + "\n") == size


def tiny(name: str, **overrides: Any) -> tuple[FlowTransformer, dict[str, Any]]:
    torch.manual_seed(0)
    args = {**TINY[name], "image_attn_mode": "proj", "proj_in_channels": 10, "dtype": "bfloat16", **overrides}
    model = build({"name": name, "args": args})
    assert isinstance(model, FlowTransformer)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval(), args


def test_files_in_float32_with_stored_phases_are_cast_while_reading(tmp_path: Path) -> None:
    model, args = tiny("SparseStructureFlowModel")
    save_pretrained(model, tmp_path / "flow", args)
    stored = {k: p.detach().float() for k, p in model.named_parameters()}
    save_file(
        {**stored, "rope_phases": torch.zeros(64, 8, dtype=torch.complex64)}, tmp_path / "flow.safetensors"
    )
    loaded = from_pretrained(tmp_path / "flow")
    for name, parameter in model.named_parameters():
        assert loaded.get_parameter(name).dtype == parameter.dtype
        assert torch.equal(loaded.get_parameter(name), parameter)
    assert torch.equal(loaded.get_buffer("rope_phases"), model.get_buffer("rope_phases"))  # not the zeros


@pytest.mark.parametrize("name", ["SparseStructureFlowModel", "SLatFlowModel"])
def test_arguments_that_no_flow_has_are_refused_by_name(name: str) -> None:
    for extra, says in (
        ({"image_attn_mode": "gated_proj"}, "gated_proj"),
        ({"vae_channels": 4}, "vae_channels"),
    ):
        with pytest.raises(CheckpointError, match=says):
            build({"name": name, "args": {**TINY[name], **extra}})


def sparse(channels: int) -> SparseTensor:
    coords = torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6], [1, 0, 0, 1]], dtype=torch.int32)
    return SparseTensor(torch.randn(3, channels), coords)


@torch.no_grad()
def test_a_condition_that_does_not_fit_is_refused() -> None:
    model, args = tiny("SLatFlowModel", dtype="float32")
    x, t = sparse(args["in_channels"]), torch.ones(2)
    tokens = torch.randn(2, 5, args["cond_channels"])
    for cond, says in (
        (tokens, "takes PixelTokens"),
        (PixelTokens(tokens, torch.randn(3, 11)), "11"),
        (PixelTokens(tokens, torch.randn(4, 10)), "4 tokens, x has 3"),
    ):
        with pytest.raises(InvalidArgumentError, match=says):
            model(x, t, cond)
    plain = build({"name": "SLatFlowModel", "args": TINY["SLatFlowModel"]})
    with pytest.raises(InvalidArgumentError, match="not pixel-aligned"):
        plain(x, t, PixelTokens(tokens, None))


@pytest.mark.parametrize("name", ["SparseStructureFlowModel", "SLatFlowModel"])
@torch.no_grad()
def test_guidance_in_one_pass_and_in_two_agree(name: str) -> None:
    model, args = tiny(name, dtype="float32", in_channels=4, out_channels=4)
    dense = name == "SparseStructureFlowModel"
    x: Any = torch.randn(2, args["in_channels"], 4, 4, 4) if dense else sparse(args["in_channels"])
    features = torch.randn(2, 64, 10) if dense else torch.randn(3, 10)
    cond = PixelTokens(torch.randn(2, 5, args["cond_channels"]), features)
    zeros = PixelTokens(torch.zeros_like(cond.tokens), torch.zeros_like(features))  # type: ignore[arg-type]
    guidance = Guidance(3.0, 0.5)
    results = []
    for network in (model, RecordedFlow(model)):
        for null in (cond.null(), zeros):
            for batched in (False, True):
                v = GuidedModel(network, cond, null, guidance, batched=batched)(x, 0.7)
                results.append(v if dense else v.feats)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_features_alone_change_the_result() -> None:
    model, args = tiny("SLatFlowModel", dtype="float32")
    x, t = sparse(args["in_channels"]), torch.ones(2)
    tokens = torch.randn(2, 5, args["cond_channels"])
    features = torch.randn(3, 10)
    seen = model(x, t, PixelTokens(tokens, features)).feats
    unseen = model(x, t, PixelTokens(tokens, None)).feats
    assert float((seen - unseen).abs().max()) > 1e-2
