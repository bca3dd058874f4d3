"""A mesh and pictures to the mesh with a new PBR texture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..conditioning.images import ImageSource, load_image
from ..conditioning.matting.matte import Notice, OnNotice, Subjects, ignore
from ..errors import EmptyStructureError, InvalidArgumentError, UnsupportedPipelineError
from ..progress import CancelCallback, Monitor, ProgressCallback
from ..samplers.acceleration import Passes, check_quality
from ..sparse import SparseTensor
from .bake import bake_texture
from .base import LatentPipeline
from .config import load_parts, read_pipeline_config
from .stages import SamplingRun, Settings, stages_from_config
from .upright_conditioner import with_seen_colors
from .views import view_warning

if TYPE_CHECKING:
    import trimesh

UNIT_BOX = [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
MARGIN_SCALE = 0.99999  # of the unit cube, so that rounding keeps every vertex inside
FLOW_RESOLUTIONS = (512, 1024)
ONE_VIEW = range(1, 2)  # what texture flows were trained on


class Trellis2TexturingPipeline(LatentPipeline):
    """Textures a given mesh in the style of a picture. Meshes come in and go out Y up, as in GLB files."""

    model_names: tuple[str, ...] = (
        "shape_slat_encoder",
        "tex_slat_decoder",
        "tex_slat_flow_model_512",
        "tex_slat_flow_model_1024",
    )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        config_file: str = "texturing_pipeline.json",
        revision: str | None = None,
        device: torch.device | str = "cpu",
        low_vram: bool | None = None,
        skip: Collection[str] = (),
        model_paths: Mapping[str, str] | None = None,
        image_cond_model: str | None = None,
        rembg_model: str | None = None,
    ) -> Trellis2TexturingPipeline:
        """Load from a folder or hub repository; arguments as in the image pipeline's `from_pretrained`."""
        args = read_pipeline_config(path, config_file, revision).args
        parts = load_parts(
            path,
            args,
            cls.model_names,
            revision=revision,
            skip=skip,
            model_paths=model_paths,
            image_cond_model=image_cond_model,
            rembg_model=rembg_model,
        )
        low_vram = args.get("low_vram", True) if low_vram is None else low_vram
        pipeline = cls(
            parts.models,
            stages_from_config(args),
            parts.image_cond_model,
            parts.rembg_model,
            low_vram,
            parts.pixel_source,
        )
        pipeline._pretrained_args = args
        return pipeline.to(device)

    @classmethod
    def beside(
        cls,
        owner: LatentPipeline,
        path: str | Path,
        *,
        config_file: str = "texturing_pipeline.json",
        revision: str | None = None,
    ) -> Trellis2TexturingPipeline:
        """The texturing pipeline of the weights that `owner` was loaded from: it loads only what `owner` has
        not (the shape encoder) and shares the rest. Raises `CheckpointError`.
        """
        args = read_pipeline_config(path, config_file, revision).args
        shared = {name: model for name, model in owner.models.items() if name in cls.model_names}
        skip = (*shared, "image_cond_model", "rembg_model", "pixel_source")
        parts = load_parts(path, args, cls.model_names, revision=revision, skip=skip)
        pipeline = cls(
            {**parts.models, **shared},
            stages_from_config(args),
            owner.image_cond_model,
            owner.rembg_model,
            owner.low_vram,
            owner.pixel_source,
        )
        pipeline._pretrained_args = args
        pipeline._published_dtypes, pipeline._recorded = owner._published_dtypes, owner._recorded
        return pipeline.to(owner.device)

    @property
    def available_resolutions(self) -> list[int]:
        """The sides of the voxel grids for which there is a texture flow."""
        needed = ("shape_slat_encoder", "tex_slat_decoder")
        if any(name not in self.models for name in needed):
            return []
        return [size for size in FLOW_RESOLUTIONS if f"tex_slat_flow_model_{size}" in self.models]

    @torch.no_grad()
    def run(
        self,
        mesh: trimesh.Trimesh,
        image: ImageSource | Sequence[ImageSource],
        seed: int = 42,
        tex_slat_sampler_params: Settings | None = None,
        preprocess_image: bool = True,
        resolution: int = 1024,
        texture_size: int = 2048,
        *,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> trimesh.Trimesh:
        """The mesh, centred and scaled to the unit cube, with a base colour and a metallic-roughness texture.

        Raises as `paint`.
        """
        mesh = self.preprocess_mesh(mesh)
        voxels = self.paint(
            mesh.vertices,
            mesh.faces,
            image,
            seed,
            tex_slat_sampler_params,
            preprocess_image,
            resolution,
            progress=progress,
            cancel=cancel,
        )
        with self._stage("bake", Monitor(progress, cancel)):
            return self.postprocess_mesh(mesh, voxels, resolution, texture_size)

    @torch.no_grad()
    def paint(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        image: ImageSource | Sequence[ImageSource],
        seed: int = 42,
        tex_slat_sampler_params: Settings | None = None,
        preprocess_image: bool = True,
        resolution: int = 1024,
        *,
        subjects: Subjects = "auto",
        view_mode: str = "cycle",
        quality: str = "exact",
        passes: dict[str, Passes] | None = None,
        notice: OnNotice = ignore,
        progress: ProgressCallback | None = None,
        cancel: CancelCallback | None = None,
    ) -> SparseTensor:
        """The attributes `[T, 6]` (see `pbr_attr_layout`) of the voxels that a mesh crosses, nominally 0..1.

        vertices `[V, 3]` lie in the unit cube around the origin, Z up (see `UnitCube`); faces `[F, 3]`.
        `image` is a picture or a list of views; the other arguments are those of
        `Trellis2ImageTo3DPipeline.run`. Raises as that does, and `o_voxel.errors.MeshError` for a mesh that
        cannot be voxelised.
        """
        flow_resolution = 512 if resolution == 512 else 1024
        flow_name = f"tex_slat_flow_model_{flow_resolution}"
        if flow_name not in self.models:
            raise UnsupportedPipelineError(
                f"texturing at {resolution} needs {flow_name}, which these weights do not have; "
                f"they hold {', '.join(sorted(self.models)) or 'no models'}"
            )
        check_quality(quality)
        settings = {"tex_slat": self._latent_stage("tex_slat").settings(tex_slat_sampler_params)}
        monitor, counted = Monitor(progress, cancel), {} if passes is None else passes
        run = SamplingRun(torch.Generator().manual_seed(seed), settings, monitor, quality, counted)

        images: list[Any] = list(image) if isinstance(image, (list, tuple)) else [image]
        with self._stage("image", monitor):
            pictures = [
                self.preprocess_image(each, subjects, notice) if preprocess_image else load_image(each)
                for each in images
            ]
        warning = view_warning(len(pictures), ONE_VIEW, pixel_aligned=False)
        if warning is not None:
            notice(Notice("views", warning))
        with self._stage("condition", monitor):
            conditioner = self.conditioner_of(pictures, (flow_resolution,), view_mode)
        with self._stage("encode_shape", monitor):
            shape_slat = self.encode_shape_slat(vertices, faces, resolution)
        tex_slat = self.sample_tex_slat(conditioner, self.models[flow_name], shape_slat, resolution, run)
        with self._stage("decode_texture", monitor):
            return with_seen_colors(conditioner, self.decode_tex_slat(tex_slat), resolution)

    def preprocess_mesh(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        """A new mesh, with its UVs alone, in the unit cube around the origin, turned from Y up to Z up."""
        import trimesh

        vertices = UnitCube(np.asarray(mesh.vertices), np.asarray(mesh.faces))(mesh.vertices)
        own = getattr(mesh.visual, "uv", None)
        visual = None if own is None else trimesh.visual.TextureVisuals(uv=np.array(own))
        return trimesh.Trimesh(vertices, np.array(mesh.faces), visual=visual, process=False)

    @torch.no_grad()
    def encode_shape_slat(
        self, vertices: np.ndarray, faces: np.ndarray, resolution: int = 1024
    ) -> SparseTensor:
        """The (raw) shape latent of a mesh in the unit cube; it remembers the mesh's voxels for decoding."""
        from o_voxel.convert import mesh_to_flexible_dual_grid

        indices, dual, intersected = mesh_to_flexible_dual_grid(
            torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float32)),
            torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int32)),
            grid_size=resolution,
            aabb=UNIT_BOX,
            face_weight=1.0,
            boundary_weight=0.2,
            regularization_weight=1e-2,
        )
        if not len(indices):
            raise EmptyStructureError(f"the mesh crosses no voxel of a {resolution}³ grid")
        coords = torch.nn.functional.pad(indices, (1, 0)).to(self.device)  # batch column 0
        voxels = SparseTensor(feats=(dual * resolution - indices).to(self.device), coords=coords)
        with self._in_use(self._model("shape_slat_encoder")) as encoder:
            slat: SparseTensor = encoder(voxels, voxels.replace(intersected.to(self.device)))
        return slat

    @torch.no_grad()
    def decode_tex_slat(self, slat: SparseTensor) -> SparseTensor:
        """Attributes `[T, 6]`, nominally 0..1, on exactly the voxels that the latent was encoded from."""
        return self._decoded_attributes(self._model("tex_slat_decoder"), slat)

    def postprocess_mesh(
        self,
        mesh: trimesh.Trimesh,
        pbr_voxel: SparseTensor,
        resolution: int = 1024,
        texture_size: int = 1024,
    ) -> trimesh.Trimesh:
        """Unwrap (unless the mesh has UVs), bake the voxels into textures, and turn back to Y up."""
        return bake_texture(
            mesh,
            pbr_voxel.coords[:, 1:],
            pbr_voxel.feats,
            self.pbr_attr_layout,
            resolution,
            texture_size,
        )


class UnitCube:
    """Where the voxels of a mesh lie: its vertices `[V, 3]` (Y up) centred and scaled into the unit cube
    around the origin, Z up, as float64.

    Only vertices that faces `[F, 3]` use count. Raises `InvalidArgumentError` for a mesh without extent.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        used = np.asarray(vertices, dtype=np.float64)[np.unique(faces)] if len(faces) else vertices[:0]
        if not len(used) or not np.isfinite(used).all():
            raise InvalidArgumentError(
                f"the mesh has {len(vertices)} vertices and {len(faces)} faces; it needs finite ones"
            )
        low, high = used.min(axis=0), used.max(axis=0)
        if not (high - low).max() > 0:
            raise InvalidArgumentError("the mesh is a single point; it needs some extent")
        self.middle, self.scale = (low + high) / 2, MARGIN_SCALE / (high - low).max()

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        x, y, z = ((np.asarray(vertices, dtype=np.float64) - self.middle) * self.scale).T
        return np.stack([x, -z, y], axis=1)
