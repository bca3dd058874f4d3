"""Parity of samplers, image preprocessing and pipeline stages with the golden files.

The stage files use toy velocity networks, linear in the state; each file's `config` states the formula.
"""

from __future__ import annotations

import json
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
