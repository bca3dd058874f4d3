"""Reads a pipeline's config and loads what it names, several files at once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..conditioning.pixel_map import PixelSource, load_pixel_source
from ..conditioning.registry import (
    BACKGROUND_REMOVERS,
    IMAGE_ENCODERS,
    BackgroundRemover,
    ImageEncoder,
    build_background_remover,
    build_image_encoder,
)
from ..conditioning.structure_refiner import StructureRefiner, load_structure_refiner
from ..errors import CheckpointError
from ..models.base import Model
from ..models.loading import download
from ..models.loading import from_pretrained as load_model

log = logging.getLogger(__name__)

# Reading and casting overlap; more threads than cores, or than this, only fight over memory and disk.
PARALLEL_LOADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class PipelineConfig:
    """`pipeline.json`: which class, and its arguments."""

    name: str
    args: dict[str, Any]


@dataclass
class Parts:
    """What a config's models section and what else reads pictures became."""

    models: dict[str, Model] = field(default_factory=dict)
    image_cond_model: ImageEncoder | None = None
    rembg_model: BackgroundRemover | None = None
    pixel_source: PixelSource | None = None
    structure_refiner: StructureRefiner | None = None


def read_pipeline_config(path: str | Path, config_file: str, revision: str | None = None) -> PipelineConfig:
    """The config at `<path>/<config_file>`, or of the hub repository `path`. Raises `CheckpointError`."""
    file = Path(path) / config_file
    if not file.is_file():
        if Path(path).exists() or str(path).count("/") != 1 or Path(path).is_absolute():
            raise CheckpointError(
                f"there is no {config_file} in {path}; name a pipeline folder or owner/repo"
            )
        file = download(str(path), config_file, revision)
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return PipelineConfig(str(raw["name"]), dict(raw["args"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{file} is no pipeline config with name and args ({error!r})") from error


def load_parts(
    path: str | Path,
    args: Mapping[str, Any],
    wanted: Collection[str],
    *,
    revision: str | None = None,
    skip: Collection[str] = (),
    model_paths: Mapping[str, str] | None = None,
    image_cond_model: str | None = None,
    rembg_model: str | None = None,
    device: torch.device | str = "cpu",
) -> Parts:
    """Load the models of `args["models"]` that are in `wanted`, the image encoder and the background remover.

    `skip` names parts to leave out. `model_paths`, `image_cond_model` and `rembg_model` replace what the
    config says (folder or hub id), so that other copies of the same weights can be used.
    `args["model_args"]` has, by model, arguments in place of those of its own config. The models' weights are
    read straight to `device`; the two image models come through the CPU.
    """
    listed = {name: value for name, value in (args.get("models") or {}).items() if name in wanted}
    listed.update(model_paths or {})
    unknown = set(listed) - set(wanted)
    if unknown:
        raise CheckpointError(
            f"no such model: {', '.join(sorted(unknown))}; this pipeline uses {', '.join(wanted)}"
        )
    parts, given = Parts(), args.get("model_args") or {}
    with ThreadPoolExecutor(PARALLEL_LOADS, thread_name_prefix="load") as pool:
        loads = {
            name: pool.submit(load_one, path, value, revision, device, **given.get(name, {}))
            for name, value in listed.items()
            if name not in skip
        }
        # transformers is not safe to use from several threads at once: its two models load here, one after
        # the other.
        if args.get("image_cond_model") and "image_cond_model" not in skip:
            parts.image_cond_model = build_image_encoder(args["image_cond_model"], path, image_cond_model)
        if args.get("rembg_model") and "rembg_model" not in skip:
            parts.rembg_model = build_background_remover(args["rembg_model"], path, rembg_model)
        if args.get("pixel_source") and "pixel_source" not in skip:
            parts.pixel_source = load_pixel_source(Path(path) / args["pixel_source"])
        if args.get("structure_refiner") and "structure_refiner" not in skip:
            parts.structure_refiner = load_structure_refiner(Path(path) / args["structure_refiner"])
        parts.models = {name: load.result() for name, load in loads.items()}
    return parts


DINOV3 = {
    "name": "DinoV3FeatureExtractor",
    "args": {"model_name": "facebook/dinov3-vitl16-pretrain-lvd1689m"},
}


BIREFNET = {"name": "BiRefNet", "args": {"model_name": "ZhengPeng7/BiRefNet"}}


def with_known_parts(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a pixel-aligned pipeline with DINOv3 and BiRefNet where they name none that is known
    here: the published program itself pays no attention to these entries.
    """
    encoder, remover = (args.get(key) or {} for key in ("image_cond_model", "rembg_model"))
    return {
        **args,
        "image_cond_model": encoder if encoder.get("name") in IMAGE_ENCODERS else DINOV3,
        "rembg_model": remover if remover.get("name") in BACKGROUND_REMOVERS else BIREFNET,
    }


UPSAMPLER_FILES = ("naf_release.safetensors", "naf_release.pth")


def find_upsampler(path: str | Path, given: str | Path | None) -> Path:
    """The file with NAF's weights: as given, else in the pipeline's folder. Raises `CheckpointError`."""
    if given is not None:
        return Path(given)
    places = [folder / name for folder in (Path(path), Path(path) / "ckpts") for name in UPSAMPLER_FILES]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise CheckpointError(
            f"pixel-aligned weights need NAF's, and {path} holds no {' or '.join(UPSAMPLER_FILES)}: download "
            "naf_release.pth from the releases of github.com/valeoai/NAF and name it as feature_upsampler"
        )
    return found


def load_one(
    path: str | Path,
    value: str,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    **arguments: Any,
) -> Model:
    """The model at `<path>/<value>`, else at `value` alone: a model of another repository.

    `arguments` replace those of its config.
    """
    inside = f"{path}/{value}"
    if any(Path(inside + suffix).is_file() for suffix in (".json", ".safetensors")):
        return load_model(inside, device=device, **arguments)
    try:
        return load_model(inside, revision=revision, device=device, **arguments)
    except CheckpointError as error:
        log.debug("not inside the pipeline's folder", extra={"path": inside})
        first = error
    try:
        # Without the revision: that belongs to the pipeline's own repository.
        return load_model(value, device=device, **arguments)
    except CheckpointError as error:
        raise CheckpointError(
            f"neither {inside!r} ({first}) nor {value!r} ({error}) can be loaded"
        ) from error
