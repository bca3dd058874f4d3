"""Checks of the network files: weights and inputs are in the file, so are the outputs to reproduce."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trellis2.models import (
    FlexiDualGridVaeDecoder,
    FlexiDualGridVaeEncoder,
    FlowConfig,
    FlowTransformer,
    Model,
    SLatFlowModel,
    SparseStructureDecoder,
    SparseStructureEncoder,
    SparseStructureFlowModel,
    SparseUnetVaeDecoder,
    SparseUnetVaeEncoder,
)
from trellis2.models.sparse_blocks import SparseConvNeXtBlock3d, SparseResBlockC2S3d, SparseResBlockS2C3d
from trellis2.models.sparse_structure_vae import pixel_shuffle_3d
from trellis2.nn.attention import TokenLayout
from trellis2.nn.block import ModulatedTransformerCrossBlock
from trellis2.nn.rope import apply_rope, grid_coords, rope_phases
from trellis2.nn.timestep import TimestepEmbedder, timestep_frequencies
from trellis2.sparse import SparseConv3d, SparseSpatial2Channel, SparseTensor

from .check import Comparison, check, exact, relative_l2

# The files state no tolerance for 16-bit torsos: a few roundings of the format, measured against a
# float32-accurate run.
FP16_TOLERANCE = 2e-3
BF16_TOLERANCE = 1e-2


class Golden:
    """A golden file: config, weights by key, inputs and outputs as tensors."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays["config"]))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays or f"{name}.feats" in self.arrays

    def array(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def sparse(self, name: str) -> SparseTensor:
        return SparseTensor(self.tensor(f"{name}.feats"), self.tensor(f"{name}.coords"))

    def weights(self, prefix: str = "") -> dict[str, torch.Tensor]:
        start = f"w/{prefix}"
        return {k.removeprefix(start): self.tensor(k) for k in self.arrays if k.startswith(start)}

    def build(
        self, cls: type[nn.Module], prefix: str = "", config: dict | None = None, **overrides: Any
    ) -> Any:
        """The module of this file's config, filled with its weights, which must be exactly the module's
        parameters.
        """
        given = (self.config if config is None else config) | overrides
        if issubclass(cls, FlowTransformer):
            names = {field.name for field in dataclasses.fields(FlowConfig)}
            return self.fill(cls(**{k: v for k, v in given.items() if k in names}), prefix)
        parameters = inspect.signature(cls).parameters.values()
        names = {p.name for p in parameters}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        return self.fill(cls(**{k: v for k, v in given.items() if takes_any or k in names}), prefix)

    def fill(self, module: nn.Module, prefix: str) -> Any:
        weights = self.weights(prefix)
        own = dict(module.named_parameters())
        if own.keys() != weights.keys():
            raise AssertionError(f"parameters differ: {sorted(own.keys() ^ weights.keys())}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(
                    weights[name].reshape(parameter.shape) if parameter.ndim == 0 else weights[name]
                )
        return module.eval()

    def compare(
        self, name: str, ours: torch.Tensor | SparseTensor, tolerance: float = 1e-4
    ) -> list[Comparison]:
        """Against the output `name`: coordinates, integers and flags exactly, floats relatively."""
        if isinstance(ours, SparseTensor):
            return [
                exact(f"{name}.coords", ours.coords.numpy(), self.array(f"{name}.coords")),
                *self.compare(f"{name}.feats", ours.feats, tolerance),
            ]
        reference = self.array(name)
        if reference.dtype.kind in "biu":
            return [exact(name, ours.numpy(), reference)]
        return [relative_l2(name, ours.float().numpy(), reference, tolerance)]

    def compare_where_shared(self, name: str, ours: SparseTensor, tolerance: float) -> list[Comparison]:
        """16-bit geometry: a logit within rounding of zero may flip, so compare the voxels that both have.

        The share of voxels that only one side has must stay below 1 %.
        """
        theirs = {tuple(c): i for i, c in enumerate(self.array(f"{name}.coords").tolist())}
        pairs = [(i, theirs[tuple(c)]) for i, c in enumerate(ours.coords.tolist()) if tuple(c) in theirs]
        rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        alone = len(ours.coords) + len(theirs) - 2 * len(pairs)
        share = alone / max(len(theirs), 1)
        mine, reference = ours.feats.float().numpy()[rows[:, 0]], self.array(f"{name}.feats")[rows[:, 1]]
        return [
            Comparison(f"{name}.coords (share not common)", share, 0.01),
            relative_l2(f"{name}.feats", mine, reference, tolerance),
        ]


def no_grad(function: Callable[[Path], list[Comparison]]) -> Callable[[Path], list[Comparison]]:
    def run(path: Path) -> list[Comparison]:
        with torch.no_grad():
            return function(path)

    return run


# ---- layers ------------------------------------------------------------------------------------------------


@check("models/timestep_embedding*.npz")
@no_grad
def timestep_embedding(path: Path) -> list[Comparison]:
    g = Golden(path)
    t = g.tensor("in/t")
    embedder = g.build(TimestepEmbedder, channels=g.config["hidden_size"])
    return g.compare("out/freq", timestep_frequencies(t)) + g.compare("out/emb", embedder(t))


@check("models/pixel_shuffle*.npz")
@no_grad
def pixel_shuffle(path: Path) -> list[Comparison]:
    g = Golden(path)
    return [exact("out/y", pixel_shuffle_3d(g.tensor("in/x"), 2).numpy(), g.array("out/y"))]


@check("models/sparse_conv*.npz")
@no_grad
def sparse_conv(path: Path) -> list[Comparison]:
    g = Golden(path)
    return g.compare("out/y", g.build(SparseConv3d)(g.sparse("in/x")))


@check("models/sparse_std*.npz")
@no_grad
def sparse_std(path: Path) -> list[Comparison]:
    g = Golden(path)
    x = SparseTensor(g.tensor("in/feats"), g.tensor("in/coords"))
    return g.compare("out/mean", x.mean([1], keepdim=True)) + g.compare("out/std", x.std([1], keepdim=True))


@check("models/dense_block*.npz")
@no_grad
def dense_block(path: Path) -> list[Comparison]:
    g = Golden(path)
    block = g.build(ModulatedTransformerCrossBlock)
    x, context = g.tensor("in/x"), g.tensor("in/context")
    batch, length, channels = x.shape
    head_dim = channels // g.config["num_heads"]
    coords = grid_coords(round(length ** (1 / 3)))
    phases = rope_phases(coords, head_dim).repeat(batch, 1) if g.config.get("use_rope") else None
    layout = TokenLayout.of([length] * batch, "cpu")
    context_layout = TokenLayout.of([context.shape[1]] * batch, "cpu")
    tokens = x.flatten(0, 1)
    key_value = block.cross_attn.key_value(context.flatten(0, 1))

    def grouped(y: torch.Tensor) -> torch.Tensor:
        return y.unflatten(0, (batch, length))

    out = block(tokens, layout, g.tensor("in/mod"), key_value, context_layout, phases)
    results = g.compare("out/y", grouped(out))
    if "in/phase_angle" in g and phases is not None:
        angles = torch.from_numpy(np.exp(1j * g.array("in/phase_angle").astype(np.float64)))
        ours = torch.view_as_real(phases[:length]).numpy()
        results.append(relative_l2("in/phase_angle", ours, torch.view_as_real(angles).numpy()))
    if "in/q_probe" in g and phases is not None:
        q = g.tensor("in/q_probe")
        results += g.compare("out/q_rmsnorm", block.self_attn.q_rms_norm(q))
        results += g.compare("out/q_rope", grouped(apply_rope(q.flatten(0, 1), phases)))
    parts = {
        "out/self_attn": lambda: block.self_attn(tokens, layout, phases),
        "out/cross_attn": lambda: block.cross_attn(tokens, layout, key_value, context_layout),
        "out/mlp": lambda: block.mlp(tokens),
    }
    for name, part in parts.items():
        if name in g:
            results += g.compare(name, grouped(part()))
    return results


# ---- sparse VAE blocks -------------------------------------------------------------------------------------


@check("models/convnext_block*.npz")
@no_grad
def convnext_block(path: Path) -> list[Comparison]:
    g = Golden(path)
    return g.compare("out/y", g.build(SparseConvNeXtBlock3d)(g.sparse("in/x")))


@check("models/s2c_block*.npz")
@no_grad
def s2c_block(path: Path) -> list[Comparison]:
    g = Golden(path)
    results = g.compare("out/y", g.build(SparseResBlockS2C3d)(g.sparse("in/x")))
    if "out/updown_only" in g:
        results += g.compare("out/updown_only", SparseSpatial2Channel()(g.sparse("in/x")))
    return results


@check("models/c2s_block_cached*.npz")
@no_grad
def c2s_block_cached(path: Path) -> list[Comparison]:
    g = Golden(path)
    fine, coarse = g.tensor("w/down.norm1.weight").numel(), g.tensor("w/up.norm1.weight").numel()
    down = g.build(SparseResBlockS2C3d, "down.", {"channels": fine, "out_channels": coarse})
    up = g.build(SparseResBlockC2S3d, "up.", {"channels": coarse, "out_channels": fine, "pred_subdiv": False})
    z = down(g.sparse("in/x"))
    return g.compare("out/z", z) + g.compare("out/y", up(z))


@check("models/c2s_block_guided*.npz")
@no_grad
def c2s_block_guided(path: Path) -> list[Comparison]:
    g = Golden(path)
    x = g.sparse("in/x")
    return g.compare("out/y", g.build(SparseResBlockC2S3d)(x, x.replace(g.tensor("in/subdiv"))))


@check("models/c2s_block_pred*.npz")
@no_grad
def c2s_block_pred(path: Path) -> list[Comparison]:
    g = Golden(path)
    y, logits = g.build(SparseResBlockC2S3d)(g.sparse("in/x"))
    return g.compare("out/y", y) + g.compare("out/subdiv_logits", logits)


# ---- whole models ------------------------------------------------------------------------------------------


@check("models/ss_flow*.npz")
@no_grad
def ss_flow(path: Path) -> list[Comparison]:
    g = Golden(path)
    inputs = g.tensor("in/x"), g.tensor("in/t"), g.tensor("in/cond")
    model = g.build(SparseStructureFlowModel, dtype="float32")
    results = g.compare("out/v", model(*inputs))
    results += g.compare("out/v", model(*inputs[:2], model.prepare_cond(inputs[2])))
    if "out16/v" in g:
        model = g.build(SparseStructureFlowModel, dtype="bfloat16")
        results += g.compare("out16/v", model(*inputs), BF16_TOLERANCE)
    return results


@check("models/slat_flow*.npz")
@no_grad
def slat_flow(path: Path) -> list[Comparison]:
    g = Golden(path)
    x, t, cond = g.sparse("in/x"), g.tensor("in/t"), g.tensor("in/cond")
    concat = x.replace(g.tensor("in/concat_cond.feats")) if "in/concat_cond.feats" in g else None
    model = g.build(SLatFlowModel, dtype="float32")
    results = g.compare("out/v", model(x, t, cond, concat_cond=concat))
    results += g.compare("out/v", model(x, t, model.prepare_cond(cond), concat_cond=concat))
    prefix = "out/v_list_cond_len_"
    for name in [n.removesuffix(".feats") for n in g.arrays if n.startswith(prefix) and n.endswith(".feats")]:
        lengths = [int(n) for n in name.removeprefix(prefix).split("_")]
        ragged = [c[:length] for c, length in zip(cond, lengths, strict=True)]
        results += g.compare(name, model(x, t, ragged, concat_cond=concat))
    if "out16/v" in g:
        model = g.build(SLatFlowModel, dtype="bfloat16")
        results += g.compare("out16/v", model(x, t, cond, concat_cond=concat), BF16_TOLERANCE)
    return results


@check("models/ss_decoder*.npz")
@no_grad
def ss_decoder(path: Path) -> list[Comparison]:
    g = Golden(path)
    z = g.tensor("in/z")
    results = g.compare("out/logits", g.build(SparseStructureDecoder, use_fp16=False)(z))
    if "out16/logits" in g:
        model = g.build(SparseStructureDecoder, use_fp16=True)
        results += g.compare("out16/logits", model(z), FP16_TOLERANCE)
    return results


@check("models/ss_encoder*.npz")
@no_grad
def ss_encoder(path: Path) -> list[Comparison]:
    g = Golden(path)
    z, mean, logvar = g.build(SparseStructureEncoder, use_fp16=False)(
        g.tensor("in/x").float(), return_raw=True
    )
    return g.compare("out/z", z) + g.compare("out/mean", mean) + g.compare("out/logvar", logvar)


@check("models/fdg_encoder*.npz")
@no_grad
def fdg_encoder(path: Path) -> list[Comparison]:
    g = Golden(path)
    vertices = SparseTensor(g.tensor("in/vertices"), g.tensor("in/coords"))
    flags = vertices.replace(g.tensor("in/intersected"))
    model = g.build(FlexiDualGridVaeEncoder, use_fp16=False)
    z, _, logvar = model(vertices, flags, return_raw=True)
    return g.compare("out/z", z) + g.compare("out/logvar", logvar)


@check("models/fdg_decoder*.npz")
@no_grad
def fdg_decoder(path: Path) -> list[Comparison]:
    g = Golden(path)
    x = g.sparse("in/x")
    model: FlexiDualGridVaeDecoder = g.build(FlexiDualGridVaeDecoder, use_fp16=False)
    h, _, subs = model.decode(x)
    vertices, logits, quad_lerp = model.dual_grid(h)
    results = g.compare("out/h", h)
    results += [c for i, sub in enumerate(subs) for c in g.compare(f"out/subs{i}", sub)]
    results += g.compare("out/vertices", vertices.feats)
    results += g.compare("out/intersected", logits.feats > 0)
    results += g.compare("out/quad_lerp", quad_lerp.feats)
    for n in range(1, len(subs) + 1):
        if f"out/upsample{n}_coords" in g:
            results += g.compare(f"out/upsample{n}_coords", model.upsample(x, n))
    for i, mesh in enumerate(model(x)):
        results += g.compare(f"out/mesh{i}.vertices", mesh.vertices)
        results += g.compare(f"out/mesh{i}.faces", mesh.faces)
    if "out16/h" in g:
        h, _, subs = g.build(FlexiDualGridVaeDecoder, use_fp16=True).decode(x)
        results += g.compare_where_shared("out16/h", h, FP16_TOLERANCE)
        for i, sub in enumerate(subs):
            results += g.compare_where_shared(f"out16/subs{i}", sub, FP16_TOLERANCE)
    return results


@check("models/tex_decoder_guided*.npz")
@no_grad
def tex_decoder_guided(path: Path) -> list[Comparison]:
    g = Golden(path)
    x = g.sparse("in/x")
    levels = len(g.config["up_block_type"])
    guides = [g.sparse(f"in/guide_subs{i}") for i in range(levels)]
    y = g.build(SparseUnetVaeDecoder, use_fp16=False)(x, guide_subs=guides)
    results = g.compare("out/y", y) + g.compare("out/pbr", y * 0.5 + 0.5)
    if "out16/y" in g:
        model = g.build(SparseUnetVaeDecoder, use_fp16=True)
        results += g.compare("out16/y", model(x, guide_subs=guides), FP16_TOLERANCE)
    return results


@check("models/tex_vae_roundtrip*.npz")
@no_grad
def tex_vae_roundtrip(path: Path) -> list[Comparison]:
    g = Golden(path)
    encoder: Model = g.build(SparseUnetVaeEncoder, "enc.", g.config["enc"], use_fp16=False)
    decoder: Model = g.build(SparseUnetVaeDecoder, "dec.", g.config["dec"], use_fp16=False)
    z = encoder(g.sparse("in/x"))
    return g.compare("out/z", z) + g.compare("out/y", decoder(z))
