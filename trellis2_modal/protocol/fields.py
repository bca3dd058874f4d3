"""The settings of `requests` as typed keyword arguments, for editors and type checkers.

Written out, since neither reads pydantic's models here; a test compares them field by field.
"""

from __future__ import annotations

from typing import TypedDict

from .presets import PresetName
from .requests import (
    AlphaMode,
    AssetFormat,
    Compression,
    ExtractSettings,
    Fraction,
    PipelineType,
    Pivot,
    Preview,
    Quality,
    Remesh,
    Subjects,
    TextureFormat,
    TextureType,
    ViewMode,
)
from .views import ViewCamera


class MaterialSampling(TypedDict, total=False):
    tex_slat_sampling_steps: int
    tex_slat_guidance_strength: float
    tex_slat_guidance_rescale: float
    tex_slat_rescale_t: float


class GenerateFields(MaterialSampling, total=False):
    """`GenerateSettings`."""

    seed: int
    pipeline_type: PipelineType | None
    preview: Preview
    remove_background: bool
    subjects: Subjects
    texture: bool
    num_samples: int
    keep_latents: bool
    quality: Quality
    views: list[ViewCamera] | None
    fov: float | None
    estimate_fov: bool
    view_mode: ViewMode
    export: ExtractFields | ExtractSettings | None
    ss_sampling_steps: int
    ss_guidance_strength: float
    ss_guidance_rescale: float
    ss_rescale_t: float
    shape_slat_sampling_steps: int
    shape_slat_guidance_strength: float
    shape_slat_guidance_rescale: float
    shape_slat_rescale_t: float


class ExtractFields(TypedDict, total=False):
    """`ExtractSettings`."""

    simplify: PresetName | None
    decimation_target: int
    texture_size: int
    format: AssetFormat
    size_mm: float
    wall_mm: float
    flat_base: bool
    size_m: float | None
    pivot: Pivot
    lods: int
    collision: bool
    alpha_mode: AlphaMode
    texture_format: TextureFormat
    compress: Compression
    quantize: bool
    normal_map: bool
    occlusion: bool
    remesh: Remesh
    remesh_band: float
    remesh_project: float
    outer_shell: bool | None
    variant: int
    name: str | None


class TextureFields(MaterialSampling, total=False):
    """`TextureSettings`."""

    seed: int
    pipeline_type: TextureType | None
    new_uvs: bool
    texture_size: int
    texture_format: TextureFormat
    alpha_mode: AlphaMode
    preview: Preview
    remove_background: bool
    subjects: Subjects
    quality: Quality
    view_mode: ViewMode


class MatteFields(TypedDict, total=False):
    """`MatteSettings`."""

    subjects: Subjects
    box: list[Fraction] | None
    attempt: int
    crop: bool
