"""A picture and a mesh to the mesh with a new PBR texture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..conditioning.images import ImageSource, load_image
from ..errors import EmptyStructureError, InvalidArgumentError, UnsupportedPipelineError
from ..progress import CancelCallback, Monitor, ProgressCallback
from ..sparse import SparseTensor
from .bake import bake_texture
from .base import LatentPipeline
from .config import load_parts, read_pipeline_config
from .stages import SamplingRun, Settings, stages_from_config

if TYPE_CHECKING:
    import trimesh

UNIT_BOX = [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]
MARGIN_SCALE = 0.99999  # of the unit cube, so that rounding keeps every vertex inside


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

    @torch.no_grad()
    def run(
        self,
        mesh: trimesh.Trimesh,
        image: ImageSource,
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

        Raises as `Trellis2ImageTo3DPipeline.run`, and `o_voxel.errors.MeshError` for meshes that cannot be
        voxelised.
        """
        flow_resolution = 512 if resolution == 512 else 1024
        flow_name = f"tex_slat_flow_model_{flow_resolution}"
        if flow_name not in self.models:
            raise UnsupportedPipelineError(
                f"texturing at {resolution} needs {flow_name}, which these weights do not have; "
                f"they hold {', '.join(sorted(self.models)) or 'no models'}"
            )
        settings = {"tex_slat": self._latent_stage("tex_slat").settings(tex_slat_sampler_params)}
        monitor = Monitor(progress, cancel)
        run = SamplingRun(torch.Generator().manual_seed(seed), settings, monitor)

        with self._stage("image", monitor):
            picture = self.preprocess_image(image) if preprocess_image else load_image(image)
        mesh = self.preprocess_mesh(mesh)
        with self._stage("condition", monitor):
            conditioner = self.conditioner(picture, (flow_resolution,))
        with self._stage("encode_shape", monitor):
            shape_slat = self.encode_shape_slat(mesh, resolution)
        tex_slat = self.sample_tex_slat(conditioner, self.models[flow_name], shape_slat, resolution, run)
        with self._stage("decode_texture", monitor):
            voxels = self.decode_tex_slat(tex_slat)
        with self._stage("bake", monitor):
            return self.postprocess_mesh(mesh, voxels, resolution, texture_size)

    def preprocess_mesh(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        """A new mesh without visuals, in the unit cube around the origin, turned from Y up to Z up."""
        import numpy as np
        import trimesh

        vertices = np.asarray(mesh.vertices, dtype=np.float64)
        if not len(vertices) or not len(mesh.faces) or not np.isfinite(vertices).all():
            raise InvalidArgumentError(
                f"the mesh has {len(vertices)} vertices and {len(mesh.faces)} faces; it needs finite ones"
            )
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        if not (high - low).max() > 0:
            raise InvalidArgumentError("the mesh is a single point; it needs some extent")
        x, y, z = ((vertices - (low + high) / 2) * (MARGIN_SCALE / (high - low).max())).T
        return trimesh.Trimesh(np.stack([x, -z, y], axis=1), np.array(mesh.faces), process=False)

    @torch.no_grad()
    def encode_shape_slat(self, mesh: trimesh.Trimesh, resolution: int = 1024) -> SparseTensor:
        """The (raw) shape latent of a mesh in the unit cube; it remembers the mesh's voxels for decoding."""
        import numpy as np
        from o_voxel.convert import mesh_to_flexible_dual_grid

        indices, dual, intersected = mesh_to_flexible_dual_grid(
            torch.from_numpy(np.asarray(mesh.vertices, dtype=np.float32)),
            torch.from_numpy(np.asarray(mesh.faces, dtype=np.int32)),
            grid_size=resolution,
            aabb=UNIT_BOX,
            face_weight=1.0,
            boundary_weight=0.2,
            regularization_weight=1e-2,
        )
        if not len(indices):
            raise EmptyStructureError(f"the mesh crosses no voxel of a {resolution}³ grid")
        coords = torch.nn.functional.pad(indices, (1, 0)).to(self.device)  # batch column 0
        vertices = SparseTensor(feats=(dual * resolution - indices).to(self.device), coords=coords)
        with self._in_use(self._model("shape_slat_encoder")) as encoder:
            slat: SparseTensor = encoder(vertices, vertices.replace(intersected.to(self.device)))
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
