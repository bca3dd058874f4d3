"""Parity of samplers, image preprocessing and pipeline stages with the golden files.

The stage files use toy velocity networks, linear in the state; each file's `config` states the formula.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trellis2.samplers import SAMPLERS, time_grid

from .check import Comparison, check, exact, relative_l2

Arrays = dict[str, np.ndarray]


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a golden file and its parsed config."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    return arrays, json.loads(str(arrays["config"]))


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def toy_dense_model(weight: torch.Tensor) -> Callable[..., torch.Tensor]:
    """v = (W x)·(1 + t/1000) + mean over tokens of cond, first C channels."""

    def velocity(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        shape = (-1, *[1] * (x.ndim - 1))
        bias = cond.mean(1)[:, : x.shape[1]].reshape(x.shape[0], x.shape[1], *[1] * (x.ndim - 2))
        return torch.einsum("ij,bj...->bi...", weight, x) * (1 + t / 1000).reshape(shape) + bias

    return velocity


def toy_sparse_model(weight: torch.Tensor, concat_weight: float = 0.1) -> Callable[..., Any]:
    """v = (x Wᵀ)·(1 + t/1000) + mean(cond) (+ 0.1·concat_cond), per voxel of each sample."""

    def velocity(x: Any, t: torch.Tensor, cond: torch.Tensor, concat_cond: Any = None) -> Any:
        batch = x.coords[:, 0].long()
        v = (x.feats @ weight.T) * (1 + t / 1000)[batch, None] + cond.mean(1)[batch, : weight.shape[0]]
        if concat_cond is not None:
            v = v + concat_weight * concat_cond.feats
        return x.replace(v)

    return velocity


def run_samplers(
    arrays: Arrays, config: dict[str, Any], model: Any, noise: Any, extra: dict[str, Any]
) -> list[Comparison]:
    """Each run that the config lists, against its final state, every intermediate one, and its time grid."""
    cond = tensor(arrays["in/cond"])
    found: list[Comparison] = []
    for name, sampler_name, parameters in config["runs"]:
        sampler = SAMPLERS[sampler_name](sigma_min=config["sigma_min"])
        neg: dict[str, Any] = (
            {} if sampler_name == "FlowEulerSampler" else {"neg_cond": torch.zeros_like(cond)}
        )
        result = sampler.sample(model, noise, cond, **neg, **parameters, **extra)
        feats = [getattr(x, "feats", x) for x in (result.samples, *result.pred_x_t, *result.pred_x_0)]
        steps = len(result.pred_x_t)
        x_t, x_0 = torch.stack(feats[1 : steps + 1]), torch.stack(feats[steps + 1 :])
        found += [
            relative_l2(f"{name}.samples", feats[0].numpy(), arrays[f"out/{name}.samples"]),
            relative_l2(f"{name}.x_t", x_t.numpy(), arrays[f"out/{name}.x_t"]),
            relative_l2(f"{name}.x_0", x_0.numpy(), arrays[f"out/{name}.x_0"]),
            exact(
                f"{name}.t",
                np.asarray(time_grid(parameters["steps"], parameters["rescale_t"])),
                arrays[f"out/{name}.t"],
            ),
        ]
    return found


@check("models/sampler_dense*.npz")
def sampler_dense(path: Path) -> list[Comparison]:
    arrays, config = read(path)
    model = toy_dense_model(tensor(arrays["in/W"]))
    return run_samplers(arrays, config, model, tensor(arrays["in/noise"]), {})


@check("models/sampler_sparse*.npz")
def sampler_sparse(path: Path) -> list[Comparison]:
    from trellis2.sparse import SparseTensor

    arrays, config = read(path)
    noise = SparseTensor(feats=tensor(arrays["in/noise"]), coords=tensor(arrays["in/coords"]))
    extra = {}
    if "in/concat_cond" in arrays:
        extra["concat_cond"] = noise.replace(tensor(arrays["in/concat_cond"]))
    return run_samplers(arrays, config, toy_sparse_model(tensor(arrays["in/W"])), noise, extra)


def disc_image(spec: np.ndarray) -> np.ndarray:
    """The soft disc over colour ramps that `preprocess_image.npz` describes; uint8 `[H, W, 4]`."""
    height, width, cy, cx, radius = (int(v) for v in spec)
    y, x = np.mgrid[0:height, 0:width]
    distance = np.sqrt((y - cy) ** 2 + (x - cx) ** 2)
    alpha = np.clip((radius - distance) * 40 + 128, 0, 255)
    channels = [x * 255 // width, y * 255 // height, (x + y) % 256, alpha]
    return np.stack([c.astype(np.uint8) for c in channels], axis=-1)


@check("models/preprocess_image*.npz")
def preprocessed_image(path: Path) -> list[Comparison]:
    from PIL import Image

    from trellis2.conditioning import preprocess_image

    arrays, _ = read(path)
    found = []
    for key in sorted(k for k in arrays if k.startswith("out/")):
        name = key.removeprefix("out/")
        pixels = arrays[f"in/{name}"] if f"in/{name}" in arrays else disc_image(arrays[f"in/{name}_spec"])
        found.append(exact(name, np.asarray(preprocess_image(Image.fromarray(pixels))), arrays[key]))
    return found


# ---- the pipeline's stages, with toy flows and real decoders -----------------------------------------------

TOY_STEPS = 4
STRUCTURE_PARAMS = {
    "steps": TOY_STEPS,
    "guidance_strength": 7.5,
    "guidance_rescale": 0.7,
    "guidance_interval": [0.6, 1.0],
    "rescale_t": 5.0,
}
SHAPE_PARAMS = {**STRUCTURE_PARAMS, "guidance_rescale": 0.5, "rescale_t": 3.0}
TEXTURE_PARAMS = {
    **SHAPE_PARAMS,
    "guidance_strength": 1.0,
    "guidance_rescale": 0.0,
    "guidance_interval": [0.6, 0.9],
}
CASCADE_SEED = 7  # the one draw that no config states


class ToyFlow:
    """A toy velocity with the attributes that the pipeline reads from a flow model."""

    def __init__(self, velocity: Callable[..., Any], in_channels: int, resolution: int = 0) -> None:
        self.velocity = velocity
        self.in_channels = in_channels
        self.resolution = resolution

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.velocity(*args, **kwargs)


def seed_of(config: dict[str, Any], default: int) -> int:
    """The seed that a config or its note states."""
    stated = re.search(r"seed[ =(]*(\d+)", config.get("note", ""))
    return int(config.get("seed", stated.group(1) if stated else default))


def generator_of(config: dict[str, Any], default: int = 42) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(config, default))


def conditioner(cond: np.ndarray, fine: np.ndarray | None = None) -> Any:
    """The image tokens of all stages; `fine`: of those towards more than 512."""
    from trellis2.pipelines.conditioner import Condition, ImageConditioner

    low, high = (Condition(tensor(c), torch.zeros(c.shape)) for c in (cond, cond if fine is None else fine))
    return ImageConditioner({512: low, 1024: high})


def build_model(arrays: Arrays, config: dict[str, Any]) -> Any:
    """The network of a golden file, with its weights."""
    from trellis2.models import model_class

    args = {name: value for name, value in config.items() if name not in ("cls", "note", "seed")}
    model = model_class(config["cls"])(**args).eval()
    weights = {
        name.removeprefix("w/"): tensor(value) for name, value in arrays.items() if name.startswith("w/")
    }
    model.load_state_dict(weights)
    return model


def build_pipeline(models: dict[str, Any], arrays: Arrays) -> Any:
    """A pipeline around toy flows, with the file's latent statistics."""
    from trellis2.pipelines import Trellis2ImageTo3DPipeline
    from trellis2.pipelines.latents import Normalization
    from trellis2.pipelines.stages import LatentStage

    sampler = SAMPLERS["FlowEulerGuidanceIntervalSampler"](sigma_min=1e-5)

    def statistics(prefix: str) -> Normalization | None:
        if f"in/{prefix}mean" not in arrays:
            return None
        return Normalization({name: arrays[f"in/{prefix}{name}"].tolist() for name in ("mean", "std")})

    shape, texture = statistics("shape_") or statistics(""), statistics("tex_")
    stages = (
        LatentStage("sparse_structure", sampler, STRUCTURE_PARAMS),
        LatentStage("shape_slat", sampler, SHAPE_PARAMS, shape),
        LatentStage("tex_slat", sampler, TEXTURE_PARAMS, texture),
    )
    return Trellis2ImageTo3DPipeline(models, {stage.name: stage for stage in stages})


def sampling_run(generator: torch.Generator, **settings: Any) -> Any:
    from trellis2.pipelines.stages import SamplingRun

    return SamplingRun(generator, settings)


@check("models/ss_coords*.npz")
def sparse_structure_coords(path: Path) -> list[Comparison]:
    arrays, config = read(path)
    channels = config["latent_channels"]
    decoder = build_model(arrays, config)
    grid = re.search(r"channels at (\d+)\^3", config.get("note", ""))
    flow = ToyFlow(toy_dense_model(tensor(arrays["in/W"])), channels, int(grid.group(1)) if grid else 4)
    pipeline = build_pipeline(
        {"sparse_structure_flow_model": flow, "sparse_structure_decoder": decoder}, arrays
    )
    found = []
    for key in sorted(k for k in arrays if k.startswith("out/coords_res")):
        resolution = int(key.removeprefix("out/coords_res"))
        coords = pipeline.sample_sparse_structure(
            conditioner(arrays["in/cond"]), resolution, run=sampling_run(generator_of(config))
        )
        found.append(exact(key.removeprefix("out/"), coords.numpy(), arrays[key]))
    return found


@check("models/cascade*.npz")
def cascade(path: Path) -> list[Comparison]:
    arrays, config = read(path)
    notes = json.loads(str(arrays["notes"]))
    pipeline = build_pipeline({"shape_slat_decoder": build_model(arrays, config)}, arrays)
    flows = [
        ToyFlow(toy_sparse_model(tensor(arrays[f"in/W_{pass_name}"])), config["latent_channels"])
        for pass_name in ("lr", "hr")
    ]
    found = []
    for name in sorted(k.split("/")[1].removesuffix(".coords") for k in arrays if k.endswith(".coords")):
        target = re.match(r"r(\d+)", name)
        assert target is not None, name
        slat, resolution = pipeline.sample_shape_slat_cascade(
            conditioner(arrays["in/lr_cond"], arrays["in/cond"]),
            *flows,
            int(target.group(1)),
            tensor(arrays["in/coords"]),
            sampling_run(generator_of(config, CASCADE_SEED)),
            notes[name]["max_num_tokens"],
        )
        found += [
            exact(f"{name}.resolution", np.array(resolution), np.array(notes[name]["hr_resolution"])),
            exact(f"{name}.coords", slat.coords.numpy(), arrays[f"out/{name}.coords"]),
            relative_l2(f"{name}.feats", slat.feats.numpy(), arrays[f"out/{name}.feats"]),
        ]
    return found


@check("models/tex_slat_sampling*.npz")
def texture_sampling(path: Path) -> list[Comparison]:
    from trellis2.sparse import SparseTensor

    arrays, config = read(path)
    pipeline = build_pipeline({}, arrays)
    weight = tensor(arrays["in/W"])
    shape_slat = SparseTensor(feats=tensor(arrays["in/shape_slat"]), coords=tensor(arrays["in/coords"]))
    flow = ToyFlow(toy_sparse_model(weight), weight.shape[0] + shape_slat.feats.shape[1])
    slat = pipeline.sample_tex_slat(
        conditioner(arrays["in/cond"]), flow, shape_slat, 512, sampling_run(generator_of(config))
    )
    return [
        exact("coords", slat.coords.numpy(), arrays["out/slat.coords"]),
        relative_l2("feats", slat.feats.numpy(), arrays["out/slat.feats"]),
    ]


@check("models/noise_order*.npz")
def noise_order(path: Path) -> list[Comparison]:
    """The pipeline's own draws, recorded while it runs its stages with flows that predict no motion."""
    arrays, config = read(path)
    drawn = recorded_noise(seed_of(config, 42), count=int(re.findall(r"N=(\d+)", config["note"])[0]))
    names = ("ss_head", "shape_head", "tex_head")
    found = [
        exact(name, noise.flatten()[: arrays[f"out/{name}"].size].numpy(), arrays[f"out/{name}"])
        for name, noise in zip(names, drawn, strict=True)
    ]
    sums = np.array([float(noise.double().sum()) for noise in drawn])
    return [*found, relative_l2("sums", sums, arrays["out/sums"])]


def recorded_noise(seed: int, count: int, channels: int = 32) -> list[torch.Tensor]:
    """What the sparse-structure, shape and texture stages draw from one generator, for `count` voxels."""
    drawn: list[torch.Tensor] = []

    def still(x: Any, t: torch.Tensor, cond: torch.Tensor, concat_cond: Any = None) -> Any:
        if t[0] == 1000:  # the first step sees pure noise
            drawn.append(getattr(x, "feats", x))
        return x * 0.0

    def decoder(latent: torch.Tensor) -> torch.Tensor:
        logits = torch.full((latent.shape[0], 1, 64, 64, 64), -1.0)
        logits.view(-1)[:count] = 1.0
        return logits

    plain = {"mean": np.zeros(channels), "std": np.ones(channels)}
    statistics = {f"in/{kind}_{name}": value for kind in ("shape", "tex") for name, value in plain.items()}
    structure = ToyFlow(still, in_channels=8, resolution=16)
    pipeline = build_pipeline(
        {"sparse_structure_flow_model": structure, "sparse_structure_decoder": decoder}, statistics
    )
    cond = conditioner(np.zeros((1, 1, 1), dtype=np.float32))
    plain_steps = {"guidance_strength": 1.0, "guidance_rescale": 0.0}
    run = sampling_run(
        torch.Generator().manual_seed(seed), sparse_structure=plain_steps, shape_slat=plain_steps
    )
    coords = pipeline.sample_sparse_structure(cond, 64, 1, run)
    shape = pipeline.sample_shape_slat(cond, ToyFlow(still, channels), coords, 512, run)
    pipeline.sample_tex_slat(cond, ToyFlow(still, 2 * channels), shape, 512, run)
    return drawn
