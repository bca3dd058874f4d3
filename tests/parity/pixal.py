"""Checks of the pixel-aligned conditioning: cameras, projection, sampled features, NAF, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from trellis2.conditioning.camera import (
    Camera,
    filling_distance,
    front_camera,
    in_main_frame,
    project,
    token_points,
)
from trellis2.conditioning.encoders.image_batch import normalize_tokens, view_tensor
from trellis2.conditioning.naf import NAF, upsample_at
from trellis2.conditioning.pixel_features import (
    PixelView,
    make_view,
    sample_map,
    split_tokens,
    token_features,
)
from trellis2.conditioning.preprocess import PIXEL_ALIGNED_MARGIN, preprocess_image
from trellis2.models import SparseStructureFlowModel, model_class
from trellis2.nn.block import ModulatedTransformerCrossBlock
from trellis2.nn.rope import grid_coords, rope_phases
from trellis2.nn.tokens import PixelTokens, TokenLayout
from trellis2.pipelines.latents import cascade_coords, quantized, world_from_camera_frame
from trellis2.samplers.flow import denoise, time_grid
from trellis2.samplers.guidance import Guidance, GuidedModel, distinct_tokens
from trellis2.sparse import SparseTensor

from .check import Comparison, check, exact, relative_l2
from .models import BF16_TOLERANCE, Golden, no_grad

TOLERANCE = 2e-5


def camera_of(row: np.ndarray) -> tuple[Camera, float, float, int]:
    """Camera, mesh scale, picture side, grid of a row [fov, distance, mesh scale, S, R]."""
    fov, distance, scale, size, grid = row[:5].tolist()
    return front_camera(fov, distance), scale, size, int(grid)


def upsampler(g: Golden) -> NAF:
    model = NAF(g.config["dim"], g.config["heads"])
    model.load_state_dict(g.weights())
    return model


@check("pixal/camera_distance.npz")
def camera_distance(path: Path) -> list[Comparison]:
    g = Golden(path)
    ours = [
        [filling_distance(fov, scale, extra, size), front_camera(fov).focal(size)]
        for fov, scale, extra, size in g.array("in/rows").tolist()
    ]
    return [relative_l2("out/distance_focal", np.array(ours), g.array("out/distance_focal"), TOLERANCE)]


@check("pixal/projection.npz")
@no_grad
def projection(path: Path) -> list[Comparison]:
    g = Golden(path)
    results: list[Comparison] = []
    for name in [f"cam{i}" for i in range(5)] + [f"pose{i}" for i in range(4)]:
        camera, scale, size, grid = camera_of(g.array(f"in/{name}"))
        if f"in/{name}.c2w" in g.arrays:
            camera = Camera(g.tensor(f"in/{name}.c2w"), camera.fov)
        points = token_points(grid_coords(grid), grid, scale)
        pixels, depths = project(points, camera, size)
        inside = ((pixels >= 0) & (pixels < size)).all(1) & (depths > 0)
        results += g.compare(f"out/{name}.pixel", pixels, TOLERANCE)
        results += g.compare(f"out/{name}.depth", depths, TOLERANCE)
        results += [exact(f"out/{name}.valid", inside.numpy(), g.array(f"out/{name}.valid"))]
        if f"out/{name}.world" in g.arrays:
            results += g.compare(f"out/{name}.world", points, TOLERANCE)
    return results


@check("pixal/sampling.npz")
@no_grad
def sampling(path: Path) -> list[Comparison]:
    g = Golden(path)
    return [
        comparison
        for i in range(4)
        for comparison in g.compare(
            f"out/y{i}",
            sample_map(
                g.tensor(f"in/map{i}").permute(1, 2, 0), g.tensor(f"in/pixel{i}"), int(g.array(f"in/S{i}")[0])
            ),
            TOLERANCE,
        )
    ]


@check("pixal/proj_grid.npz")
@no_grad
def proj_grid(path: Path) -> list[Comparison]:
    g = Golden(path)
    results: list[Comparison] = []
    for i in range(5):
        camera, scale, size, grid = camera_of(g.array(f"in/cam{i}"))
        low, high = g.tensor(f"in/lr{i}"), g.tensor(f"in/hr{i}").permute(1, 2, 0)

        def features(patches: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
            view = PixelView(camera, int(size), patches, {})  # noqa: B023
            return token_features([view], 1, coords, grid, (), scale)  # noqa: B023

        dense, rows = grid_coords(grid), g.tensor(f"in/coords{i}")[:, 1:]
        results += g.compare(f"out/lr{i}", features(low, dense), TOLERANCE)
        results += g.compare(f"out/hr{i}", features(high, dense), TOLERANCE)
        both = torch.cat([features(low, rows), features(high, rows)], dim=1)
        results += g.compare(f"out/sparse{i}", both, TOLERANCE)
    return results


@check("pixal/naf.npz")
@no_grad
def naf(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(5):
        side, values = int(g.array(f"in/T{i}")[0]), g.tensor(f"in/features{i}").permute(1, 2, 0)
        guide = model.guide(model.encode(g.tensor(f"in/image{i}"), side), side, values.shape[0])
        queries = guide.queries.flatten(1).T.unflatten(1, (side, side))
        results += g.compare(f"out/guide{i}", queries[:, ::5, ::5], TOLERANCE)
        pixels = torch.arange(side * side)[:, None]
        out = upsample_at(guide, values, pixels, torch.ones_like(pixels, dtype=torch.float32))
        results += g.compare(f"out/y{i}", out.T.unflatten(1, (side, side)), TOLERANCE)
    return results


def fused(
    hidden: torch.Tensor,
    cameras: Sequence[Camera],
    pictures: Sequence[torch.Tensor],
    sides: list[int],
    model: NAF,
    grid: int,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Global tokens and the features of a dense grid from each view's hidden states `[V, L, C]`."""
    split = [split_tokens(normalize_tokens(h)) for h in hidden]
    views = [
        make_view(camera, patches, picture, sides, model)
        for camera, (_, patches), picture in zip(cameras, split, pictures, strict=True)
    ]
    tokens = torch.stack([tokens for tokens, _ in split]).mean(0)
    return tokens, token_features(views, len(views), grid_coords(grid), grid, sides, scale)


@check("pixal/conditioning.npz")
@no_grad
def conditioning(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(3):
        row = g.array(f"in/cam{i}")
        camera, scale, _, grid = camera_of(row)
        sides = [int(row[5])] if row[5] else []
        hidden, picture = g.tensor(f"in/hidden{i}")[None], g.tensor(f"in/image{i}")
        tokens, features = fused(hidden, [camera], [picture], sides, model, grid, scale)
        results += g.compare(f"out/global{i}", tokens, TOLERANCE)
        results += g.compare(f"out/proj{i}", features, TOLERANCE)
    return results


@check("pixal/multiview.npz")
@no_grad
def multiview(path: Path) -> list[Comparison]:
    g = Golden(path)
    model = upsampler(g)
    results: list[Comparison] = []
    for i in range(4):
        size, grid, side = g.array(f"in/meta{i}").tolist()
        fovs, scale = g.array(f"in/fov{i}").tolist(), float(g.array(f"in/scale{i}")[0])
        posed = [Camera(m, f) for m, f in zip(g.tensor(f"in/c2w{i}"), fovs, strict=True)]
        cameras = in_main_frame(posed)
        results += g.compare(f"out/distance{i}", torch.tensor([c.distance for c in posed]), TOLERANCE)
        results += g.compare(f"out/calc{i}", torch.stack([c.camera_to_world for c in cameras]), TOLERANCE)
        blank: Any = [torch.zeros(3, size, size)] * len(cameras)
        pictures = g.tensor(f"in/images{i}") if side else blank
        sides = [side] if side else []
        tokens, features = fused(g.tensor(f"in/hidden{i}"), cameras, pictures, sides, model, grid, scale)
        results += g.compare(f"out/global{i}", tokens, TOLERANCE)
        results += g.compare(f"out/proj{i}", features, TOLERANCE)
    return results


def tokens_of(g: Golden) -> PixelTokens:
    return PixelTokens(g.tensor("in/global"), g.tensor("in/proj"))


@check("pixal/block_dense.npz", "pixal/block_sparse.npz")
@no_grad
def block(path: Path) -> list[Comparison]:
    g = Golden(path)
    x, seen = g.tensor("in/x"), g.tensor("in/global")
    module = g.build(ModulatedTransformerCrossBlock, feature_channels=g.config["proj_in_channels"])
    batch, head_dim = len(seen), x.shape[-1] // g.config["num_heads"]
    if "in/coords" in g:
        coords = g.tensor("in/coords")
        lengths, places = coords[:, 0].bincount().tolist(), coords[:, 1:]
    else:
        lengths, places = [x.shape[1]] * batch, grid_coords(round(x.shape[1] ** (1 / 3))).repeat(batch, 1)
    layout, context = TokenLayout.of(lengths, "cpu"), TokenLayout.of([seen.shape[1]] * batch, "cpu")
    one = TokenLayout.of([1] * batch, "cpu")
    phases, features = rope_phases(places, head_dim), g.tensor("in/proj").flatten(0, -2)
    tokens, mod = x.flatten(0, -2), g.tensor("in/mod")
    kv = module.cross_attn.key_value(seen.flatten(0, 1))
    null = module.cross_attn.key_value(torch.zeros_like(seen).flatten(0, 1))
    shrunk = module.cross_attn.key_value(torch.zeros_like(seen[:, 0]), single=True)
    runs = {
        "out/y": module(tokens, layout, mod, kv, context, phases, None, features),
        "out/y_null": module(tokens, layout, mod, null, context, phases, None, torch.zeros_like(features)),
        "out/y_null, no features": module(tokens, layout, mod, null, context, phases),
        "out/y_null, one token": module(tokens, layout, mod, shrunk, one, phases),
    }
    if "out/branch" in g:
        runs["out/branch"] = module.cross_attn(module.norm2(tokens), layout, kv, context, features)
    return [c for name, y in runs.items() for c in g.compare(name.split(",")[0], y.view(x.shape), TOLERANCE)]


@check("pixal/ss_flow_proj.npz", "pixal/slat_flow_proj.npz")
@no_grad
def flow(path: Path) -> list[Comparison]:
    g = Golden(path)
    t, seen = g.tensor("in/t"), tokens_of(g)
    extra: dict[str, Any] = {}
    if "in/coords" in g:
        x: Any = SparseTensor(g.tensor("in/x"), g.tensor("in/coords"))
        extra["concat_cond"] = x.replace(g.tensor("in/concat_cond"))
    else:
        x = g.tensor("in/x")
    config = {k: v for k, v in g.config.items() if k not in ("cls", "note")}

    def model(dtype: str) -> Any:
        return g.build(model_class(g.config["cls"]), config={**config, "dtype": dtype})

    def values(v: Any) -> torch.Tensor:
        return v if isinstance(v, torch.Tensor) else v.feats

    network = model("float32")
    results: list[Comparison] = []
    for cond in (seen, network.prepare_cond(seen)):
        results += g.compare("out/v", values(network(x, t, cond, **extra)), TOLERANCE)
    zeros = PixelTokens(torch.zeros_like(g.tensor("in/global")), torch.zeros_like(g.tensor("in/proj")))
    for cond in (zeros, seen.null(), distinct_tokens(zeros)):
        results += g.compare("out/v_null", values(network(x, t, cond, **extra)), TOLERANCE)
    results += g.compare("out16/v", values(model("bfloat16")(x, t, seen, **extra)), BF16_TOLERANCE)
    return results


@check("pixal/guided_ss.npz")
@no_grad
def guided_structure(path: Path) -> list[Comparison]:
    g = Golden(path)
    settings = dict(g.config["sampler"])
    config = {k: v for k, v in g.config.items() if k not in ("sampler", "sigma_min")}
    network, seen = g.build(SparseStructureFlowModel, config=config), tokens_of(g)
    steps, rescale_t = settings.pop("steps"), settings.pop("rescale_t")
    times = time_grid(steps, rescale_t)
    guidance = Guidance(
        settings["guidance_strength"], settings["guidance_rescale"], tuple(settings["guidance_interval"])
    )
    results: list[Comparison] = []
    for batched in (False, True):
        velocity = GuidedModel(network, seen, seen.null(), guidance, g.config["sigma_min"], batched=batched)
        trace: list[torch.Tensor] = []
        samples = denoise(velocity, g.tensor("in/noise"), times, observe=lambda *step: trace.append(step[3]))  # noqa: B023
        results += g.compare("out/samples", samples, TOLERANCE)
        results += g.compare("out/first", trace[0], TOLERANCE)
    return results


@check("pixal/cascade_quantize.npz")
def cascade_quantize(path: Path) -> list[Comparison]:
    g = Golden(path)
    coords, low = g.tensor("in/hr_coords"), g.config["lr_resolution"]
    results: list[Comparison] = []
    for resolution in (1024, 1408, 1536):
        unique, final = cascade_coords(coords, low, resolution, 10**6, shrink=True)
        results += [exact("resolution", np.array(final), np.array(resolution))]
        results += g.compare(f"out/unique{resolution}", unique)
        rows = torch.cat([coords[:, :1].int(), quantized(coords[:, 1:], low, resolution, shrink=True)], dim=1)
        results += g.compare(f"out/rows{resolution}", rows)
    return results


@check("pixal/output_rotation.npz")
def output_rotation(path: Path) -> list[Comparison]:
    g = Golden(path)
    x, y, z = world_from_camera_frame(g.tensor("in/vertices"), half_turn=True).unbind(1)
    return g.compare("out/vertices", torch.stack([x, z, -y], dim=1), TOLERANCE)


@check("pixal/preprocess.npz")
def preprocess(path: Path) -> list[Comparison]:
    g = Golden(path)
    return [
        exact(
            f"out/rgb{i}",
            np.asarray(
                preprocess_image(Image.fromarray(g.array(f"in/rgba{i}")), margin=PIXEL_ALIGNED_MARGIN)
            ),
            g.array(f"out/rgb{i}"),
        )
        for i in range(3)
    ]


@check("pixal/view_tensor.npz")
def posed_picture(path: Path) -> list[Comparison]:
    g = Golden(path)
    picture = Image.fromarray(g.array("in/rgba"))
    return [
        c for size in (32, 80) for c in g.compare(f"out/view{size}", view_tensor(picture, size), TOLERANCE)
    ]
