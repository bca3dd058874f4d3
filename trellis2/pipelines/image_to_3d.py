"""One picture to textured meshes: the stages in reading order are `run`, then the methods below it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from ..conditioning.images import ImageSource, load_image
from ..conditioning.lens import LensEstimator
from ..conditioning.matting.matte import Notice, OnNotice, Subjects, ignore
from ..conditioning.naf import NAF, load_naf
from ..conditioning.pixel_map import PixelSource
from ..conditioning.preprocess import with_matte
from ..conditioning.registry import BackgroundRemover, ImageEncoder
from ..conditioning.structure_refiner import StructureRefiner, as_many_cells
from ..errors import InvalidArgumentError, UnsupportedPipelineError
from ..models.base import Model
from ..models.memory import free_memory
from ..nn.precision import as_dtype
from ..progress import CancelCallback, Monitor, ProgressCallback
from ..representations import Mesh, MeshWithVoxel
from ..samplers.acceleration import Passes, check_quality
from ..samplers.flow import require_finite
from ..sparse import SparseTensor
from .base import LatentPipeline
from .conditioner import Conditioner
from .config import find_upsampler, load_parts, read_pipeline_config, with_known_parts
from .family import FAMILIES, Family
from .latents import cascade_coords, occupied_coords, plain_voxels, world_from_camera_frame
from .memory import MemoryProbe, fitting_tokens
from .pixel_conditioner import PIXEL_STAGES, EncodedPicture, PixelConditioner, PixelStage
from .stages import STAGES, LatentStage, SamplingRun, Settings, stages_from_config
from .upright_conditioner import UprightConditioner, with_seen_colors
from .views import (
    CameraSpec,
    View,
    check_count,
    check_plain,
    plain_views,
    several_views,
    single_view,
    view_warning,
)

log = logging.getLogger(__name__)

FINE_PASS = "shape_fine"  # label of a cascade's second pass
LOW_RESOLUTION = 512  # of the first pass of a cascade
UPSAMPLE_TIMES = 4  # levels of the shape decoder that the cascade runs: ×16, the full low resolution


@dataclass(frozen=True)
class PipelineType:
    """What a pipeline type runs: grid of the sparse structure, which flows, and the final resolution."""

    structure_resolution: int
    flow_resolution: int  # of the (last) shape flow and the texture flow: 512 or 1024
    resolution: int
    cascade: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The models that must be loaded."""
        first = (f"shape_slat_flow_model_{LOW_RESOLUTION}",) if self.cascade else ()
        return (
            "sparse_structure_flow_model",
            "sparse_structure_decoder",
            *first,
            f"shape_slat_flow_model_{self.flow_resolution}",
            "shape_slat_decoder",
            f"tex_slat_flow_model_{self.flow_resolution}",
            "tex_slat_decoder",
        )


PIPELINE_TYPES: Mapping[str, PipelineType] = {
    "512": PipelineType(32, 512, 512),
    "1024": PipelineType(64, 1024, 1024),
    "1024_cascade": PipelineType(32, 1024, 1024, cascade=True),
    "1536_cascade": PipelineType(32, 1024, 1536, cascade=True),
}
DEFAULT_PIPELINE_TYPE = "1024_cascade"

Latents = tuple[SparseTensor, SparseTensor | None, int]


@dataclass(frozen=True)
class Prepared:
    """What the samples of one request share; `run` has no source of noise yet."""

    kind: PipelineType
    conditioner: Conditioner
    run: SamplingRun
    notice: OnNotice


@dataclass(frozen=True)
class KeptShape:
    """A (denormalised) shape latent of one sample, and the resolution that it decodes to."""

    slat: SparseTensor
    resolution: int


@dataclass(frozen=True)
class Variant:
    """One asset of several, the seed that made it, and its shape latent."""

    seed: int
    asset: MeshWithVoxel
    shape: KeptShape


class Trellis2ImageTo3DPipeline(LatentPipeline):
    """A picture in, `MeshWithVoxel`s out (world frame: Z up, cube of side 1 around the origin)."""

    model_names: tuple[str, ...] = (
        "sparse_structure_flow_model",
        "sparse_structure_decoder",
        "shape_slat_flow_model_512",
        "shape_slat_flow_model_1024",
        "shape_slat_decoder",
        "tex_slat_flow_model_512",
        "tex_slat_flow_model_1024",
        "tex_slat_decoder",
    )

    def __init__(
        self,
        models: Mapping[str, Model] | None = None,
        stages: Mapping[str, LatentStage] | None = None,
        image_cond_model: ImageEncoder | None = None,
        rembg_model: BackgroundRemover | None = None,
        low_vram: bool = True,
        default_pipeline_type: str = DEFAULT_PIPELINE_TYPE,
        family: Family | None = None,
        feature_upsampler: NAF | None = None,
        pixel_source: PixelSource | None = None,
        structure_refiner: StructureRefiner | None = None,
    ) -> None:
        super().__init__(models, stages, image_cond_model, rembg_model, low_vram, pixel_source)
        self.structure_refiner = structure_refiner
        self.default_pipeline_type = default_pipeline_type
        self.family = family or Family()
        self.margin = self.family.margin
        self.feature_upsampler = feature_upsampler
        self.lens_estimator: LensEstimator | None = None
        self.half_turn = False  # whether pixel-aligned results show their back, as published

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        config_file: str = "pipeline.json",
        revision: str | None = None,
        device: torch.device | str = "cpu",
        low_vram: bool | None = None,
        skip: Collection[str] = (),
        model_paths: Mapping[str, str] | None = None,
        image_cond_model: str | None = None,
        rembg_model: str | None = None,
        feature_upsampler: str | Path | None = None,
    ) -> Trellis2ImageTo3DPipeline:
        """Load from a folder or a hub repository in the published layout.

        `skip` leaves parts out by name (a model, `image_cond_model`, `rembg_model`). `model_paths`,
        `image_cond_model` and `rembg_model` name other copies of the same weights than the config does.
        `low_vram` None keeps the config's choice (true when it has none); without it weights go straight
        to `device`. Pixel-aligned weights also need `feature_upsampler`, a file with NAF's weights; None
        looks for `naf_release.pth` or `.safetensors` in the folder and its `ckpts`. Raises `CheckpointError`.
        """
        config = read_pipeline_config(path, config_file, revision)
        args, family = config.args, FAMILIES.get(config.name, Family())
        if "pipeline_types" in args:
            family = replace(family, pipeline_types=tuple(args["pipeline_types"]))
        upsampler: Path | None = None
        if family.pixel_aligned:
            args, upsampler = with_known_parts(args), find_upsampler(path, feature_upsampler)
        low_vram = args.get("low_vram", True) if low_vram is None else low_vram
        parts = load_parts(
            path,
            args,
            cls.model_names,
            revision=revision,
            skip=skip,
            model_paths=model_paths,
            image_cond_model=image_cond_model,
            rembg_model=rembg_model,
            device="cpu" if low_vram else device,
        )
        pipeline = cls(
            parts.models,
            stages_from_config(args),
            parts.image_cond_model,
            parts.rembg_model,
            low_vram,
            args.get("default_pipeline_type", DEFAULT_PIPELINE_TYPE),
            family,
            None if upsampler is None else load_naf(upsampler),
            parts.pixel_source,
            parts.structure_refiner,
        )
        pipeline._pretrained_args = args
        return pipeline.to(device)

    @property
    def available_pipeline_types(self) -> list[str]:
        """The pipeline types whose models are all loaded."""
        offered = self.family.pipeline_types
        return [
            name
            for name, kind in PIPELINE_TYPES.items()
            if (offered is None or name in offered) and not self._missing(kind)
        ]

    def _missing(self, kind: PipelineType) -> list[str]:
        return [name for name in kind.models if name not in self.models]

    def _pipeline_type(self, name: str | None) -> PipelineType:
        name = name or self.default_pipeline_type
        available = ", ".join(self.available_pipeline_types) or "none"
        if name not in PIPELINE_TYPES:
            raise UnsupportedPipelineError(
                f"unknown pipeline type {name!r}; known: {', '.join(PIPELINE_TYPES)}; "
                f"available here: {available}"
            )
        if self.family.pipeline_types is not None and name not in self.family.pipeline_types:
            raise UnsupportedPipelineError(
                f"these weights were not made for pipeline type {name!r}; available here: {available}"
            )
        missing = self._missing(PIPELINE_TYPES[name])
        if missing:
            raise UnsupportedPipelineError(
                f"pipeline type {name!r} needs {', '.join(missing)}, which these weights do not have; "
                f"available: {available}"
            )
        return PIPELINE_TYPES[name]

    def sampler_settings(
        self,
        sparse_structure_sampler_params: Settings | None = None,
        shape_slat_sampler_params: Settings | None = None,
        tex_slat_sampler_params: Settings | None = None,
    ) -> dict[str, dict[str, Any]]:
        """What each stage samples with, by its name: the config's settings with these in their place; a
        cascade's second pass by its label, where it has settings of its own.

        Raises `InvalidArgumentError` for settings that a stage's sampler does not have.
        """
        asked = (sparse_structure_sampler_params, shape_slat_sampler_params, tex_slat_sampler_params)
        found = {
            name: self._latent_stage(name).settings(settings)
            for name, settings in zip(STAGES, asked, strict=True)
        }
        fine = self._latent_stage("shape_slat").settings(shape_slat_sampler_params, fine=True)
        return found if fine == found["shape_slat"] else found | {FINE_PASS: fine}

    pixel_stages: Mapping[str, PixelStage] = PIXEL_STAGES
    """Which pictures and maps the stages of pixel-aligned weights read."""

    memory_probe: MemoryProbe = staticmethod(free_memory)
    """Bytes free on a device, None where they set no limit; asked before the fine pass of a cascade."""

    # ---- the whole way
    # ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def run(
        self,
        image: ImageSource | Sequence[ImageSource],
        num_samples: int = 1,
        seed: int = 42,
        sparse_structure_sampler_params: Mapping[str, Any] | None = None,
        shape_slat_sampler_params: Mapping[str, Any] | None = None,
        tex_slat_sampler_params: Mapping[str, Any] | None = None,
        preprocess_image: bool = True,
        return_latent: bool = False,
        pipeline_type: str | None = None,
        max_num_tokens: int = 49152,
        *,
        texture: bool = True,
        quality: str = "exact",
        passes: dict[str, Passes] | None = None,
        cameras: Sequence[CameraSpec] | None = None,
        fov: float | Literal["estimate"] | None = None,
        view_mode: str = "cycle",
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
        subjects: Subjects = "auto",
        notice: OnNotice = ignore,
    ) -> list[MeshWithVoxel] | tuple[list[MeshWithVoxel], Latents]:
        """`num_samples` assets from a picture; with `return_latent` also (shape_slat, tex_slat, resolution).
        Without `texture` they are grey, and tex_slat is None: its flow and decoder are left out.

        `image`: PIL, encoded bytes, a path or a file; or a list of up to 8 such, views of one object. The
        sampler parameters override the config's, key by key. A seed gives the same result every time on one
        machine; noise is drawn on the CPU whatever the device. `quality` "fast" does without the network at a
        third of the steps, see `trellis2.samplers.acceleration`; `passes`, by stage, is filled with what was
        computed. `progress` gets a `Progress` at each step, `cancel` is asked between steps and stages.
        Of several objects `subjects` keeps "all" or the "largest" ("auto": the largest where the background
        remover is a simple one); `notice` is told what a person should know of the picture.

        Pixel-aligned weights read `cameras` (one a view: "front", "left", "back", "right", or camera-to-world
        matrices with Z up; a single picture needs none) and `fov`, the width of the view in degrees: 49.13 by
        default for one picture and for matrices, 20 for named views; smaller is a longer lens from further
        away; "estimate" asks MoGe-2 (see `trellis2.conditioning.lens`), for one picture.
        Other weights use several views by `view_mode`, "cycle" or "average", which is approximate.

        Raises `UnsupportedPipelineError`, `InvalidArgumentError`, `InvalidImageError`, `EmptyStructureError`,
        `NumericalError`, `Cancelled`, `BackendError` (nothing to estimate `fov` with).
        """
        if isinstance(num_samples, bool) or num_samples != int(num_samples) or num_samples < 1:
            raise InvalidArgumentError(
                f"num_samples must be a whole number of at least 1, got {num_samples!r}"
            )
        prepared = self.prepare(
            image,
            sparse_structure_sampler_params,
            shape_slat_sampler_params,
            tex_slat_sampler_params,
            preprocess_image,
            pipeline_type,
            quality=quality,
            passes=passes,
            cameras=cameras,
            fov=fov,
            view_mode=view_mode,
            progress=progress,
            cancel=cancel,
            subjects=subjects,
            notice=notice,
        )
        run = replace(prepared.run, generator=torch.Generator().manual_seed(seed))
        structure_resolution = prepared.kind.structure_resolution
        coords = self.sample_sparse_structure(prepared.conditioner, structure_resolution, num_samples, run)
        shape_slat, resolution = self.shape_of(prepared, coords, run, max_num_tokens)
        tex_slat = self.texture_of(prepared, shape_slat, resolution, run) if texture else None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        assets = self.decode_latent(
            shape_slat, tex_slat, resolution, conditioner=prepared.conditioner, monitor=run.monitor
        )
        return (assets, (shape_slat, tex_slat, resolution)) if return_latent else assets

    @torch.no_grad()
    def variants(
        self,
        image: ImageSource | Sequence[ImageSource],
        seeds: Sequence[int] = (42,),
        *,
        texture: bool = True,
        shape: KeptShape | None = None,
        max_num_tokens: int = 49152,
        **options: Any,
    ) -> Iterator[Variant]:
        """An asset for each seed, one after another, as `run` makes it of that seed alone.

        The picture is read, and the structures are sampled, once for all. A seed whose structure comes out
        empty is left out, and `notice` is told. `shape` is one that an earlier run has kept: with its own
        resolution only the texture is sampled; a cascade takes one of 512 as its coarse pass. `options` are
        those of `prepare`. Raises as `run`.
        """
        prepared = self.prepare(image, **options)
        kind, run = prepared.kind, prepared.run
        refines = shape is not None and kind.cascade and shape.resolution == LOW_RESOLUTION
        same = shape is not None and (shape.resolution == kind.resolution or (kind.cascade and not refines))
        if shape is not None and not (refines or same):
            raise InvalidArgumentError(
                f"the kept shape has resolution {shape.resolution}, which is neither that of this pipeline "
                f"type ({kind.resolution}) nor a first pass for it"
            )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        coords = None
        if shape is None:
            each = replace(run, generator=generators)
            coords = self.sample_sparse_structure(
                prepared.conditioner, kind.structure_resolution, len(generators), each, some=True
            )
        for number, (seed, generator) in enumerate(zip(seeds, generators, strict=True)):
            label = f"{number + 1} of {len(seeds)}" if len(seeds) > 1 else ""
            own = replace(run, generator=generator, monitor=run.monitor.labelled(label))
            if coords is not None:
                chosen = coords[coords[:, 0] == number]
                if not len(chosen):
                    prepared.notice(Notice("variant", f"seed {seed} came out empty and is left out"))
                    continue
                chosen = torch.cat([torch.zeros_like(chosen[:, :1]), chosen[:, 1:]], dim=1)
                slat, resolution = self.shape_of(prepared, chosen, own, max_num_tokens)
            elif shape is not None:
                slat, resolution = shape.slat.to(self.device), shape.resolution
            if refines:
                slat, resolution = self.refine_shape_slat(
                    prepared.conditioner,
                    self.models[f"shape_slat_flow_model_{kind.flow_resolution}"],
                    kind.resolution,
                    slat,
                    own,
                    max_num_tokens,
                )
            tex_slat = self.texture_of(prepared, slat, resolution, own) if texture else None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            (asset,) = self.decode_latent(
                slat, tex_slat, resolution, conditioner=prepared.conditioner, monitor=own.monitor
            )
            yield Variant(seed, asset, KeptShape(slat, resolution))

    @torch.no_grad()
    def prepare(
        self,
        image: ImageSource | Sequence[ImageSource],
        sparse_structure_sampler_params: Mapping[str, Any] | None = None,
        shape_slat_sampler_params: Mapping[str, Any] | None = None,
        tex_slat_sampler_params: Mapping[str, Any] | None = None,
        preprocess_image: bool = True,
        pipeline_type: str | None = None,
        *,
        quality: str = "exact",
        passes: dict[str, Passes] | None = None,
        cameras: Sequence[CameraSpec] | None = None,
        fov: float | Literal["estimate"] | None = None,
        view_mode: str = "cycle",
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
        subjects: Subjects = "auto",
        notice: OnNotice = ignore,
    ) -> Prepared:
        """What every sample of a request shares: checked settings, and the condition. See `run`."""
        kind = self._pipeline_type(pipeline_type)
        settings = self.sampler_settings(  # refuses unknown names before any work is done
            sparse_structure_sampler_params, shape_slat_sampler_params, tex_slat_sampler_params
        )
        check_quality(quality)
        monitor, counted = Monitor(progress, cancel), {} if passes is None else passes

        images: list[Any] = list(image) if isinstance(image, (list, tuple)) else [image]
        with self._stage("image", monitor):
            views = self.prepare_views(images, cameras, fov, preprocess_image, subjects, notice)
        warning = view_warning(
            len(views),
            self.family.views,
            self.family.pixel_aligned,
            upright=self.pixel_source is not None and bool(self._aligned_stages),
            sides=all(view.side for view in views),
        )
        if warning is not None:
            log.warning(warning, extra={"stage": "condition", "views": len(views)})
            notice(Notice("views", warning))
            monitor.report("condition", 0, 1, warning)
        with self._stage("condition", monitor):
            sizes = tuple(sorted({LOW_RESOLUTION, kind.flow_resolution}))
            conditioner = self.view_conditioner(views, sizes, view_mode)
        return Prepared(kind, conditioner, SamplingRun(None, settings, monitor, quality, counted), notice)

    def shape_of(
        self, prepared: Prepared, coords: torch.Tensor, run: SamplingRun, max_num_tokens: int = 49152
    ) -> tuple[SparseTensor, int]:
        """The shape latent on a sparse structure, and its resolution."""
        kind, conditioner = prepared.kind, prepared.conditioner
        shape_flow = self.models[f"shape_slat_flow_model_{kind.flow_resolution}"]
        if not kind.cascade:
            return self.sample_shape_slat(
                conditioner, shape_flow, coords, kind.resolution, run
            ), kind.resolution
        coarse_flow = self.models[f"shape_slat_flow_model_{LOW_RESOLUTION}"]
        return self.sample_shape_slat_cascade(
            conditioner, coarse_flow, shape_flow, kind.resolution, coords, run, max_num_tokens
        )

    def texture_of(
        self, prepared: Prepared, shape_slat: SparseTensor, resolution: int, run: SamplingRun
    ) -> SparseTensor:
        """The texture latent of a shape latent."""
        tex_flow = self.models[f"tex_slat_flow_model_{prepared.kind.flow_resolution}"]
        return self.sample_tex_slat(prepared.conditioner, tex_flow, shape_slat, resolution, run)

    # ---- the pictures
    # ------------------------------------------------------------------------------------------

    def prepare_views(
        self,
        images: Sequence[ImageSource],
        cameras: Sequence[CameraSpec] | None = None,
        fov: float | Literal["estimate"] | None = None,
        preprocess: bool = True,
        subjects: Subjects = "auto",
        notice: OnNotice = ignore,
    ) -> list[View]:
        """Matted and cropped pictures with their cameras, the main view first; arguments as for `run`.

        Without `preprocess` pictures are taken as they are, with the matte that they have.
        """
        if not self.family.pixel_aligned:
            check_plain(len(images), cameras, fov)
        if not self.family.pixel_aligned or (len(images) == 1 and cameras is None):
            cropped = [
                self.preprocess_image(i, subjects, notice) if preprocess else load_image(i) for i in images
            ]
            if not self.family.pixel_aligned:
                return plain_views(cropped, cameras)
            if isinstance(fov, str):
                fov = self.estimated_fov(cropped[0], notice)
            return [single_view(cropped[0], fov)]
        if isinstance(fov, str):
            raise InvalidArgumentError("the field of view is estimated for one picture alone; give fov")
        check_count(len(images))
        loaded = [load_image(i) for i in images]
        matted = [
            with_matte(i, self._remover, self.chosen_subjects(i, subjects), notice)
            if preprocess
            else i.convert("RGBA")
            for i in loaded
        ]
        return several_views(matted, cameras, fov)

    def estimated_fov(self, picture: Image.Image, notice: OnNotice = ignore) -> float:
        """The field of view of a cropped picture in degrees, by MoGe-2; `notice` is told of it."""
        self.lens_estimator = self.lens_estimator or LensEstimator()
        fov = self.lens_estimator(picture, self.device)
        notice(Notice("fov", f"the field of view was estimated as {fov:.1f} degrees"))
        return fov

    @torch.no_grad()
    def view_conditioner(
        self, views: Sequence[View], sizes: tuple[int, ...], view_mode: str = "cycle"
    ) -> Conditioner:
        """What gives the stages of a run their conditions, from `prepare_views`."""
        if not self.family.pixel_aligned:
            pictures_alone, sides = [view.picture for view in views], [view.side for view in views]
            return self.conditioner_of(pictures_alone, sizes, view_mode, sides)
        structure: Any = self._model("sparse_structure_flow_model")
        pictures: dict[int, list[EncodedPicture]] = {}
        for size in sorted({stage.picture for stage in self.pixel_stages.values()}):
            tensors = [view.tensor(size).to(self.device) for view in views]
            pictures[size] = [EncodedPicture(x, self.get_cond(x[None], size).cond[0]) for x in tensors]
        on_cpu = self.device.type == "cpu" and self.cpu_dtype is not None
        return PixelConditioner(
            pictures,
            [view.camera for view in views if view.camera is not None],
            structure.resolution,
            None if self.feature_upsampler is None else self.feature_upsampler.to(self.device),
            self.cpu_dtype if on_cpu and self.cpu_dtype else as_dtype(structure.config.dtype),
            self.pixel_stages,
        )

    # ---- the stages
    # ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample_structure_latent(
        self, conditioner: Conditioner, num_samples: int = 1, run: SamplingRun | None = None
    ) -> torch.Tensor:
        """The structure's latent `[num_samples, C, R, R, R]`; each is the mean of as many samples as its
        stage averages.
        """
        flow: Any = self._model("sparse_structure_flow_model")
        averaged = self._latent_stage("sparse_structure").averaged_samples
        size, generator = flow.resolution, None if run is None else run.generator
        noise = self._noise((num_samples * averaged, flow.in_channels, size, size, size), generator)
        condition = conditioner.condition("sparse_structure", None, LOW_RESOLUTION)
        latent: torch.Tensor = self._sample(
            "sparse_structure", flow, noise, condition, run, "sparse_structure"
        )
        return latent.unflatten(0, (num_samples, averaged)).mean(1)

    @torch.no_grad()
    def sample_sparse_structure(
        self,
        conditioner: Conditioner,
        resolution: int,
        num_samples: int = 1,
        run: SamplingRun | None = None,
        some: bool = False,
    ) -> torch.Tensor:
        """Occupied voxels `[N, 4]` int32 (batch, x, y, z) on a `resolution`³ grid, in row-major order."""
        latent = self.sample_structure_latent(conditioner, num_samples, run)
        with self._in_use(self._model("sparse_structure_decoder")) as decoder:
            logits = self._refined(decoder(latent), latent, conditioner, resolution)
        require_finite(logits, "sparse structure")
        return occupied_coords(logits, resolution, some)

    def _refined(
        self, logits: torch.Tensor, latent: torch.Tensor, conditioner: Conditioner, resolution: int
    ) -> torch.Tensor:
        """The decoder's logits or, where the weights have a refiner, its `[B, 1, R, R, R]` for as many cells;
        of several pictures by the first one.
        """
        first = getattr(conditioner, "views", (conditioner,))[0]
        refiner = self.structure_refiner
        if refiner is None or resolution != refiner.config.grid or not isinstance(first, UprightConditioner):
            return logits
        with self._in_use(refiner) as network:
            refined: torch.Tensor = network(logits, latent, first.observation().repeated(len(logits)))[0]
        return as_many_cells(refined, logits)

    @torch.no_grad()
    def sample_shape_slat(
        self,
        conditioner: Conditioner,
        flow_model: Any,
        coords: torch.Tensor,
        resolution: int,
        run: SamplingRun | None = None,
        label: str = "shape",
    ) -> SparseTensor:
        """The (denormalised) shape latent on `coords` `[N, 4]`, towards a grid of `resolution`³ voxels."""
        coords = coords.to(self.device)
        generator = None if run is None else run.generator
        noise = SparseTensor(self._noise((len(coords), flow_model.in_channels), generator), coords)
        condition = conditioner.condition(label, coords, resolution)
        latent: SparseTensor = self._sample("shape_slat", flow_model, noise, condition, run, label)
        return latent

    @torch.no_grad()
    def sample_shape_slat_cascade(
        self,
        conditioner: Conditioner,
        coarse_flow: Any,
        fine_flow: Any,
        resolution: int,
        coords: torch.Tensor,
        run: SamplingRun | None = None,
        max_num_tokens: int = 49152,
    ) -> tuple[SparseTensor, int]:
        """The shape latent by a coarse pass and a fine one, and the final resolution.

        The fine pass samples afresh on the voxels that the coarse latent decodes to. With too many of them
        the resolution falls in steps of 128, at most to 1024: more than `max_num_tokens`, or than the
        device's free memory allows.
        """
        run = run or SamplingRun()
        slat = self.sample_shape_slat(conditioner, coarse_flow, coords, LOW_RESOLUTION, run)
        return self.refine_shape_slat(conditioner, fine_flow, resolution, slat, run, max_num_tokens)

    @torch.no_grad()
    def refine_shape_slat(
        self,
        conditioner: Conditioner,
        fine_flow: Any,
        resolution: int,
        slat: SparseTensor,
        run: SamplingRun,
        max_num_tokens: int = 49152,
    ) -> tuple[SparseTensor, int]:
        """The second pass of a cascade, from a (denormalised) coarse shape latent; see there."""
        require_finite(slat, "coarse shape latent")
        with self._in_use(self._model("shape_slat_decoder")) as decoder:
            hr_coords = decoder.upsample(slat, upsample_times=UPSAMPLE_TIMES)
        limit = fitting_tokens(max_num_tokens, self.memory_probe(self.device), self.low_vram)
        shrink = self.family.shrinks_cascade
        fine, final = cascade_coords(hr_coords, LOW_RESOLUTION, resolution, limit, shrink)
        if final != resolution:
            reason = "the limit is" if limit == max_num_tokens else "free memory allows"
            message = f"resolution reduced from {resolution} to {final}: {reason} {limit} tokens"
            log.info(message, extra={"stage": "shape_fine", "tokens": len(fine)})
            run.monitor.report("shape_fine", 0, 1, message)
        return self.sample_shape_slat(conditioner, fine_flow, fine, final, run, FINE_PASS), final

    @torch.no_grad()
    def decode_shape_slat(self, slat: SparseTensor, resolution: int) -> tuple[list[Mesh], list[SparseTensor]]:
        """A mesh a sample, and the subdivisions that guide the texture decoder."""
        with self._in_use(self._model("shape_slat_decoder")) as decoder:
            meshes, subs = decoder(slat.to(self.device), return_subs=True, resolution=resolution)
        for mesh in meshes:
            require_finite(mesh.vertices, "shape decoder")
        return meshes, subs

    @torch.no_grad()
    def decode_tex_slat(self, slat: SparseTensor, subs: list[SparseTensor]) -> SparseTensor:
        """Attributes `[T, 6]` (see `pbr_attr_layout`), nominally 0..1, on the shape decoder's voxels."""
        return self._decoded_attributes(self._model("tex_slat_decoder"), slat, guide_subs=subs)

    @torch.no_grad()
    def decode_latent(
        self,
        shape_slat: SparseTensor,
        tex_slat: SparseTensor | None,
        resolution: int,
        *,
        conditioner: Conditioner | None = None,
        monitor: Monitor | None = None,
    ) -> list[MeshWithVoxel]:
        """Meshes with their attribute voxels from the two latents (on the same voxels, in the same order).

        Without a texture latent the voxels that the surface crosses are `PLAIN_MATERIAL`. The `conditioner`
        of the run, where it is given, shows some of them in their own colours (`with_seen_colors`).
        """
        if tex_slat is not None and shape_slat.coords.shape != tex_slat.coords.shape:
            raise InvalidArgumentError(
                f"the shape latent has {len(shape_slat.coords)} voxels, the texture latent "
                f"{len(tex_slat.coords)}; they must come from one run"
            )
        require_finite(shape_slat, "shape latent")
        with self._stage("decode_shape", monitor):
            meshes, subs = self.decode_shape_slat(shape_slat, resolution)
        attributes: Iterable[SparseTensor]
        if tex_slat is None:
            attributes = [plain_voxels(mesh.vertices, resolution) for mesh in meshes]
        else:
            require_finite(tex_slat, "texture latent")
            with self._stage("decode_texture", monitor):
                decoded = self.decode_tex_slat(tex_slat, subs)
                attributes = with_seen_colors(conditioner, decoded, resolution)
        del subs  # they hold the neighbour tables of every level
        with self._stage("mesh", monitor):
            return [
                self._asset(mesh, voxels, resolution) for mesh, voxels in zip(meshes, attributes, strict=True)
            ]

    def _asset(self, mesh: Mesh, voxels: SparseTensor, resolution: int) -> MeshWithVoxel:
        """One sample's mesh, holes filled, with its voxels."""
        mesh.fill_holes()
        vertices, coords = mesh.vertices, voxels.coords[:, 1:]
        if self.family.camera_frame:
            vertices = world_from_camera_frame(vertices, self.half_turn)
            # Of cells, by their centres in halves of a cell from the middle of the grid.
            centres = world_from_camera_frame(2 * coords + 1 - resolution, self.half_turn)
            coords = (centres - 1 + resolution) // 2
        return MeshWithVoxel(
            vertices,
            mesh.faces,
            origin=[-0.5, -0.5, -0.5],
            voxel_size=1 / resolution,
            coords=coords,
            attrs=voxels.feats,
            voxel_shape=torch.Size([1, voxels.feats.shape[1], *(coords.amax(0) + 1).tolist()]),
            layout=self.pbr_attr_layout,
        )
