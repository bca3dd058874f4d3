"""Finds image encoders and background removers by the names that pipeline configs use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from ..errors import CheckpointError

if TYPE_CHECKING:
    import torch


class ImageEncoder(Protocol):
    """Pictures, resized to `image_size`, or a tensor `[B, 3, H, W]` in 0..1, to tokens `[B, L, C]`."""

    def __call__(
        self, image: torch.Tensor | list[Image.Image], image_size: int | None = None
    ) -> torch.Tensor: ...
    def to(self, device: torch.device | str) -> Any: ...
    def cuda(self) -> Any: ...
    def cpu(self) -> Any: ...


class BackgroundRemover(Protocol):
    """An RGB picture in, the same picture with a matte as RGBA out."""

    def __call__(self, image: Image.Image) -> Image.Image: ...
    def to(self, device: torch.device | str) -> Any: ...
    def cuda(self) -> Any: ...
    def cpu(self) -> Any: ...


# Class name -> module of this package that holds it: imported when asked for, since each pulls in a large
# library.
IMAGE_ENCODERS: Mapping[str, str] = {
    "DinoV3FeatureExtractor": "encoders.dinov3",
    "DinoV2FeatureExtractor": "encoders.dinov2",
    "SmallImageEncoder": "encoders.small_encoder",
}
BACKGROUND_REMOVERS: Mapping[str, str] = {
    "BiRefNet": "matting.birefnet",
    "GrabCutMatting": "matting.grabcut",
    "SmallMatting": "matting.small_matting",
}


def build_image_encoder(
    config: Mapping[str, Any], base: str | Path | None = None, override: str | None = None
) -> ImageEncoder:
    """The encoder of a config's `image_cond_model` entry `{name, args}`.

    `override` replaces `args.model_name` (a hub id or folder with the same weights). Raises `CheckpointError`
    for an unknown name.
    """
    encoder: ImageEncoder = _build("image encoder", IMAGE_ENCODERS, config, base, override)
    return encoder


def build_background_remover(
    config: Mapping[str, Any], base: str | Path | None = None, override: str | None = None
) -> BackgroundRemover:
    """The remover of a config's `rembg_model` entry; arguments as in `build_image_encoder`."""
    remover: BackgroundRemover = _build("background remover", BACKGROUND_REMOVERS, config, base, override)
    return remover


def _build(
    kind: str,
    known: Mapping[str, str],
    config: Mapping[str, Any],
    base: str | Path | None,
    override: str | None,
) -> Any:
    name, args = str(config.get("name")), dict(config.get("args") or {})
    if name not in known:
        raise CheckpointError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
    if override is not None:
        args["model_name"] = override
    elif base is not None and "model_name" in args:
        args["model_name"] = resolve(args["model_name"], base)
    module = importlib.import_module(f".{known[name]}", __package__)
    return getattr(module, name)(**args)


def resolve(model_name: str, base: str | Path) -> str:
    """A path inside the pipeline's folder where one exists there, else the name as it is (a hub id)."""
    inside = Path(base) / model_name
    # The file may be a stem: weights lie beside it as <stem>.json and <stem>.safetensors.
    if inside.exists() or inside.with_name(inside.name + ".json").exists():
        return str(inside)
    return model_name
