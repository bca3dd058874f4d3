"""Which model is on which device, in which dtype, and when."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from PIL import Image

from ..conditioning import preprocess_image
from ..conditioning.images import ImageSource, load_image
from ..conditioning.registry import BackgroundRemover, ImageEncoder
from ..errors import InvalidArgumentError
from ..models.base import Model
from ..progress import Monitor

log = logging.getLogger(__name__)

PipelineT = TypeVar("PipelineT", bound="StagedPipeline")


class StagedPipeline:
    """What both pipelines share: models by name, the two image models, and where they are.

    With `low_vram` (the default) models stay in host memory and each is moved to the pipeline's device only
    while a stage uses it; without it, `to` moves them all. On CPUs the 16-bit torsos compute in float32,
    which is what CPUs are fast at; `cpu_dtype = None` keeps the published dtype.
    """

    cpu_dtype: torch.dtype | None = torch.float32

    def __init__(
        self,
        models: dict[str, Model] | None = None,
        image_cond_model: ImageEncoder | None = None,
        rembg_model: BackgroundRemover | None = None,
        low_vram: bool = True,
    ) -> None:
        self.models: dict[str, Model] = dict(models or {})
        self.image_cond_model = image_cond_model
        self.rembg_model = rembg_model
        self._low_vram = low_vram
        self._device = torch.device("cpu")
        self._pretrained_args: dict[str, Any] = {}
        self._published_dtypes: WeakKeyDictionary[Model, torch.dtype] = WeakKeyDictionary()

    # ---- devices
    # ------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the stages compute."""
        return self._device

    @property
    def low_vram(self) -> bool:
        """Whether models wait in host memory; setting it moves them to where they belong, between runs."""
        return self._low_vram

    @low_vram.setter
    def low_vram(self, staged: bool) -> None:
        changed, self._low_vram = staged != self._low_vram, staged
        if changed:
            self._settle(torch.device("cpu") if staged else self._device)

    def to(self: PipelineT, device: torch.device | str) -> PipelineT:
        """Compute on `device` from now on; moves the models at once unless `low_vram`."""
        self._device = torch.device(device)
        if not self.low_vram:
            self._settle(self._device)
        return self

    def _settle(self, device: torch.device) -> None:
        """Move all models to a device; to the CPU with the dtype they have, which changes with their use."""
        for model in self.models.values():
            if device.type == "cpu":
                model.to(device)
            else:
                self._place(model)
        for part in (self.image_cond_model, self.rembg_model):
            if part is not None:
                part.to(device)

    def cuda(self: PipelineT) -> PipelineT:
        """Compute on the current CUDA device."""
        return self.to("cuda")

    def cpu(self: PipelineT) -> PipelineT:
        """Compute on the CPU."""
        return self.to("cpu")

    def _place(self, model: Model) -> None:
        """Move a model to the pipeline's device, with the torso dtype that suits it."""
        published = self._published_dtypes.setdefault(model, model.dtype)
        wanted = self.cpu_dtype if self._device.type == "cpu" and self.cpu_dtype is not None else published
        model.to(self._device)
        if model.dtype != wanted:
            model.convert_to(wanted)

    @contextmanager
    def _in_use(self, part: Any) -> Iterator[Any]:
        """A model, encoder or remover on the device; with `low_vram` back on the CPU afterwards."""
        if isinstance(part, Model):
            self._place(part)
        elif self.low_vram and hasattr(part, "to"):
            part.to(self._device)
        decoder = hasattr(part, "low_vram")
        if decoder:
            part.low_vram = self.low_vram
        try:
            yield part
        finally:
            if decoder:
                part.low_vram = False
            if self.low_vram and hasattr(part, "to"):
                part.to("cpu")

    @contextmanager
    def _stage(self, name: str, monitor: Monitor | None) -> Iterator[Monitor]:
        """Report a stage that has no steps of its own, and log how long it took."""
        monitor = monitor or Monitor()
        monitor.report(name, 0, 1)
        started = time.perf_counter()
        yield monitor
        log.info("%s done", name, extra={"stage": name, "seconds": round(time.perf_counter() - started, 3)})
        monitor.report(name, 1, 1)

    def _model(self, name: str) -> Model:
        if name not in self.models:
            raise InvalidArgumentError(
                f"this pipeline has no {name}; it holds {', '.join(sorted(self.models)) or 'no models'}"
            )
        return self.models[name]

    # ---- the picture
    # --------------------------------------------------------------------------------------------

    def preprocess_image(self, input: ImageSource) -> Image.Image:
        """The subject on black, cropped square, as RGB; see `trellis2.conditioning.preprocess_image`."""
        image = load_image(input)
        if self.rembg_model is None:
            return preprocess_image(image)

        def remove(picture: Image.Image) -> Image.Image:
            with self._in_use(self.rembg_model) as remover:
                matted: Image.Image = remover(picture)
            return matted

        return preprocess_image(image, remove)

    @torch.no_grad()
    def get_cond(
        self, image: torch.Tensor | list[Image.Image], resolution: int, include_neg_cond: bool = True
    ) -> dict[str, torch.Tensor]:
        """Image tokens `[B, L, C]` at `resolution`, and the null condition: zeros of the same shape."""
        if self.image_cond_model is None:
            raise InvalidArgumentError(
                "this pipeline has no image_cond_model; load one or pass cond yourself"
            )
        self.image_cond_model.image_size = resolution
        with self._in_use(self.image_cond_model) as encoder:
            cond = encoder(image).to(self.device)
        return {"cond": cond, "neg_cond": torch.zeros_like(cond)} if include_neg_cond else {"cond": cond}
