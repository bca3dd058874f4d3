"""What both pipelines share: where models are, the picture's condition, and the texture latent."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from PIL import Image

from trellis2_pictures.cameras import DIRECTIONS

from ..conditioning import preprocess_image
from ..conditioning.encoders.image_batch import image_batch
from ..conditioning.images import ImageSource, load_image
from ..conditioning.matting.matte import OnNotice, Subjects, has_matte, ignore
from ..conditioning.pixel_map import PixelSource
from ..conditioning.registry import BackgroundRemover, ImageEncoder
from ..conditioning.structure_refiner import StructureRefiner
from ..errors import CheckpointError, InvalidArgumentError
from ..models import FlowTransformer, Model, RecordedFlow
from ..progress import Monitor
from ..representations import PBR_ATTR_LAYOUT
from ..samplers.flow import require_finite
from ..sparse import SparseTensor
from .conditioner import Condition, Conditioner, ImageConditioner, SeveralConditioners
from .latents import Normalization, to_device_pinned
from .stages import LatentStage, SamplingRun, sample
from .upright_conditioner import UprightConditioner, UprightViews

log = logging.getLogger(__name__)

PipelineT = TypeVar("PipelineT", bound="LatentPipeline")


class LatentPipeline:
    """Models by name, latent stages by name, the two image models, and where they all are.

    With `low_vram` (the default) models stay in host memory and each is moved to the pipeline's device only
    while a stage uses it; without it, `to` moves them all. On CPUs the 16-bit torsos compute in float32,
    which is what CPUs are fast at; `cpu_dtype = None` keeps the published dtype.
    """

    cpu_dtype: torch.dtype | None = torch.float32
    margin = 1.0  # side of the picture's crop in sides of the subject's box

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        stages: Mapping[str, LatentStage] | None = None,
        image_cond_model: ImageEncoder | None = None,
        rembg_model: BackgroundRemover | None = None,
        low_vram: bool = True,
        pixel_source: PixelSource | None = None,
    ) -> None:
        self.models: dict[str, Model] = dict(models or {})
        self.stages: dict[str, LatentStage] = dict(stages or {})
        self.image_cond_model = image_cond_model
        self.rembg_model = rembg_model
        self.pixel_source = pixel_source
        self.structure_refiner: StructureRefiner | None = None
        self.pbr_attr_layout = dict(PBR_ATTR_LAYOUT)
        self._low_vram = low_vram
        self._device = torch.device("cpu")
        self._pretrained_args: dict[str, Any] = {}
        self._published_dtypes: WeakKeyDictionary[Model, torch.dtype] = WeakKeyDictionary()
        self._recorded: dict[Model, RecordedFlow] = {}

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

    def cuda(self: PipelineT) -> PipelineT:
        """Compute on the current CUDA device."""
        return self.to("cuda")

    def cpu(self: PipelineT) -> PipelineT:
        """Compute on the CPU."""
        return self.to("cpu")

    def _settle(self, device: torch.device) -> None:
        """Move all models to a device; to the CPU with the dtype they have, which changes with their use."""
        self._recorded.clear()
        for model in self.models.values():
            if device.type == "cpu":
                model.to(device)
            else:
                self._place(model)
        for part in (self.image_cond_model, self.rembg_model, self.pixel_source, self.structure_refiner):
            if part is not None:
                part.to(device)

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
        try:
            yield part
        finally:
            if self.low_vram and hasattr(part, "to"):
                part.to("cpu")

    def _recorder(self, flow: Any) -> Any:
        """A flow as sampling calls it; recordings outlive the run where its weights stay on the device."""
        if not isinstance(flow, FlowTransformer):
            return flow
        if self.low_vram:
            return RecordedFlow(flow, low_memory=True)
        return self._recorded.setdefault(flow, RecordedFlow(flow))

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

    def preprocess_image(
        self, input: ImageSource, subjects: Subjects = "auto", notice: OnNotice = ignore
    ) -> Image.Image:
        """The subject on black, cropped square, as RGB; see `trellis2.conditioning.preprocess_image`."""
        image = load_image(input)
        chosen = self.chosen_subjects(image, subjects)
        return preprocess_image(image, self._remover, self.margin, chosen, notice)

    def chosen_subjects(self, image: Image.Image, subjects: Subjects) -> Subjects:
        """Which subjects "auto" keeps of a picture whose matte the remover makes: as the remover says."""
        if self.rembg_model is None or subjects != "auto" or has_matte(image):
            return subjects
        chosen: Subjects = getattr(self.rembg_model, "subjects", "all")
        return chosen

    @property
    def _remover(self) -> Callable[[Image.Image], Image.Image] | None:
        """The background remover, on the device while it is at work."""
        if self.rembg_model is None:
            return None

        def remove(picture: Image.Image) -> Image.Image:
            with self._in_use(self.rembg_model) as remover:
                matted: Image.Image = remover(picture)
            return matted

        return remove

    @torch.no_grad()
    def get_cond(self, image: torch.Tensor | list[Image.Image], resolution: int) -> Condition:
        """Image tokens `[B, L, C]` at `resolution`, and the null condition: zeros of the same shape."""
        if self.image_cond_model is None:
            raise InvalidArgumentError(
                "this pipeline has no image_cond_model; load one or pass a conditioner yourself"
            )
        with self._in_use(self.image_cond_model) as encoder:
            cond = encoder(image, resolution).to(self.device)
        return Condition(cond, torch.zeros_like(cond))

    def conditioner(self, picture: Image.Image, sizes: tuple[int, ...]) -> Conditioner:
        """What gives the stages of a run their conditions, for a preprocessed picture."""
        tokens = ImageConditioner({size: self.get_cond([picture], size) for size in sizes})
        if self.pixel_source is None:
            return tokens
        pixels = image_batch([picture], self.pixel_source.config.image_size).to(self.device)
        seen = tokens.by_size[sizes[0]].cond
        with self._in_use(self.pixel_source) as source, torch.no_grad():
            return UprightConditioner.of(tokens, seen, pixels, source, self._aligned_stages, self._cells)

    def conditioner_of(
        self,
        pictures: Sequence[Image.Image],
        sizes: tuple[int, ...],
        view_mode: str = "cycle",
        sides: Sequence[str | None] = (),
    ) -> Conditioner:
        """`conditioner` for one preprocessed picture, or approximately for several views of an object.

        `sides` are those of the object that the pictures show, by name; pixel-aligned flows use them.
        """
        each = tuple(self.conditioner(picture, sizes) for picture in pictures)
        if len(each) == 1:
            return each[0]
        upright = [one for one in each if isinstance(one, UprightConditioner) and one.aligned]
        if len(upright) < len(each) or not all(sides) or not sides:
            return SeveralConditioners(each, view_mode)
        # The object stands as the first picture shows it, whichever side that is. The cameras of that side
        # are read from the pictures: what people call the front is seldom straight on.
        turns = [DIRECTIONS[str(side)] - DIRECTIONS[str(sides[0])] for side in sides]
        return UprightViews.around(upright, [math.radians(turn) if turn else None for turn in turns])

    @property
    def _aligned_stages(self) -> frozenset[str]:
        """The stages whose flows are pixel-aligned, as `Conditioner` names them."""
        stages = {
            "sparse_structure_flow_model": "sparse_structure",
            "shape_slat_flow_model_512": "shape",
            "shape_slat_flow_model_1024": "shape_fine",
        }
        return frozenset(
            stages.get(name, "texture")
            for name, model in self.models.items()
            if isinstance(model, FlowTransformer) and model.config.feature_channels is not None
        )

    @property
    def _cells(self) -> int:
        """Cells along a side of the structure's latent."""
        flow: Any = self.models.get("sparse_structure_flow_model")
        return 8 if flow is None else int(flow.resolution)

    # ---- latents
    # ------------------------------------------------------------------------------------------------

    def _latent_stage(self, name: str) -> LatentStage:
        if name not in self.stages:
            raise InvalidArgumentError(f"this pipeline has no {name} stage")
        return self.stages[name]

    def _normalization(self, name: str) -> Normalization:
        normalization = self._latent_stage(name).normalization
        if normalization is None:
            raise CheckpointError(f"this pipeline has no statistics of the {name} latent")
        return normalization

    def _noise(
        self, shape: tuple[int, ...], generator: torch.Generator | Sequence[torch.Generator] | None
    ) -> torch.Tensor:
        """Normal noise, drawn on the CPU whatever the device, so that a seed means the same everywhere; of
        several generators each draws its own items of the batch, as many as the others."""
        if isinstance(generator, Sequence):
            own = (shape[0] // len(generator), *shape[1:])
            items = [torch.randn(own, generator=each) for each in generator]
            return to_device_pinned(torch.cat(items), self.device)
        return to_device_pinned(torch.randn(shape, generator=generator), self.device)

    def _sample(
        self,
        name: str,
        flow_model: Any,
        noise: Any,
        condition: Condition,
        run: SamplingRun | None,
        label: str,
        **extra: Any,
    ) -> Any:
        """`sample`, with the flow on the pipeline's device and the condition repeated to the batch."""
        condition = condition.repeated(noise.shape[0]).to(self.device)
        with self._in_use(flow_model) as flow:
            return sample(
                self._latent_stage(name), self._recorder(flow), noise, condition, run, label=label, **extra
            )

    @torch.no_grad()
    def sample_tex_slat(
        self,
        conditioner: Conditioner,
        flow_model: Any,
        shape_slat: SparseTensor,
        resolution: int,
        run: SamplingRun | None = None,
    ) -> SparseTensor:
        """The texture latent `[N, C]` on the voxels of a (denormalised) shape latent.

        The flow sees the normalised shape latent beside its own noise.
        """
        concat_cond = self._normalization("shape_slat").apply(shape_slat.to(self.device))
        channels = flow_model.in_channels - concat_cond.feats.shape[1]
        generator = None if run is None else run.generator
        noise = concat_cond.replace(self._noise((len(concat_cond.coords), channels), generator))
        condition = conditioner.condition("texture", concat_cond.coords, resolution)
        latent: SparseTensor = self._sample(
            "tex_slat", flow_model, noise, condition, run, "texture", concat_cond=concat_cond
        )
        return latent

    def _decoded_attributes(self, decoder: Any, slat: SparseTensor, **guide: Any) -> SparseTensor:
        """Run the texture decoder and map its −1..1 to 0..1 (not clamped)."""
        with self._in_use(decoder) as model:
            decoded: SparseTensor = model(slat.to(self.device), **guide) * 0.5 + 0.5
        require_finite(decoded, "texture decoder")
        return decoded
