"""What a caller may ask for: every field with its default, bounds, title and one line of help.

These models are the single source for the API, the command line flags, the sliders of the app (see
`controls`) and the tables of the documentation.
"""

from __future__ import annotations

from copy import copy
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .presets import PRESETS, PresetName
from .views import MAX_VIEWS, ViewCamera

PipelineType = Literal["512", "1024", "1024_cascade", "1536_cascade"]
PIPELINE_TYPES: tuple[PipelineType, ...] = ("512", "1024", "1024_cascade", "1536_cascade")
PREFERRED_PIPELINE_TYPES: tuple[PipelineType, ...] = ("1024_cascade", "1024", "512", "1536_cascade")
"""The default is the first of these that the loaded weights offer, where they have none of their own."""

Preview = Literal["none", "video", "frames"]
AlphaMode = Literal["auto", "opaque", "mask", "blend"]
NO_KTX2 = (
    "ktx2 is not written here: no encoder that states its licence comes as a wheel for Linux; export png and "
    "convert it, for instance with gltf-transform uastc"
)


def _texture_format(value: Any) -> Any:
    if value == "ktx2":
        raise ValueError(NO_KTX2)
    return value


TextureFormat = Annotated[Literal["jpeg", "png", "webp"], BeforeValidator(_texture_format)]
Compression = Literal["none", "meshopt", "draco"]
AssetFormat = Literal["glb", "usdz", "obj", "stl", "3mf", "ply"]
Pivot = Literal["origin", "base", "center"]
Remesh = bool | Literal["auto"]
Subjects = Literal["auto", "largest", "all"]
Quality = Literal["exact", "fast"]
ViewMode = Literal["cycle", "average"]
Fraction = Annotated[float, Field(ge=0, le=1)]
JobKind = Literal["generate", "extract", "texture"]

MAX_SEED = 2**31 - 1
MAX_SAMPLES = 8
MAX_ATTEMPTS = 4
"""Ways to cut a subject out: `trellis2.conditioning.matting.corrections.ATTEMPTS`."""

SAMPLER_STAGES = {
    "ss": "sparse_structure_sampler_params",
    "shape_slat": "shape_slat_sampler_params",
    "tex_slat": "tex_slat_sampler_params",
}
"""Prefix of the request's fields, and the argument of `Pipeline.run` that they become."""

TextureType = Literal["512", "1024"]
TEXTURE_TYPES: tuple[TextureType, ...] = ("512", "1024")

SAMPLER_FIELDS = {
    f"{prefix}_{field}": (argument, parameter)
    for prefix, argument in SAMPLER_STAGES.items()
    for field, parameter in (
        ("sampling_steps", "steps"),
        ("guidance_strength", "guidance_strength"),
        ("guidance_rescale", "guidance_rescale"),
        ("rescale_t", "rescale_t"),
    )
}
"""Request fields that override the weights' own setting when they are set: argument and parameter of each."""


M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Unknown fields are refused by name; infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null", defer_build=True)

    def part(self, model: type[M]) -> M:
        """Its fields that are `model`'s, a class above its own; what was set stays set."""
        return model.model_construct(
            _fields_set=self.model_fields_set & model.model_fields.keys(),
            **{name: getattr(self, name) for name in model.model_fields},
        )


def _slider(group: str, step: float) -> dict[str, Any]:
    return {"group": group, "step": step}


def _steps(group: str, default: int) -> Any:
    return Field(
        default,
        ge=1,
        le=50,
        title="Steps",
        description="Sampler steps: more take longer and add detail up to a point.",
        json_schema_extra=_slider(group, 1),
    )


def _strength(group: str, default: float) -> Any:
    return Field(
        default,
        ge=0.0,
        le=15.0,
        title="Guidance strength",
        description="How closely to follow the picture; 1 is no guidance.",
        json_schema_extra=_slider(group, 0.1),
    )


def _rescale(group: str, default: float) -> Any:
    return Field(
        default,
        ge=0.0,
        le=1.0,
        title="Guidance rescale",
        description="Pulls guided contrast back to natural levels; 0 is off.",
        json_schema_extra=_slider(group, 0.05),
    )


def _rescale_t(group: str, default: float) -> Any:
    return Field(
        default,
        ge=1.0,
        le=6.0,
        title="Time rescale",
        description="Spends more of the steps on the coarse form; 1 is even.",
        json_schema_extra=_slider(group, 0.1),
    )


VIEWS, STRUCTURE, SHAPE, TEXTURE = "Views", "Rough form", "Shape", "Material"


class GenerateSettings(Strict):
    """Everything about a generation but the picture."""

    seed: int = Field(
        42,
        ge=0,
        le=MAX_SEED,
        title="Seed",
        description="The same picture, settings and seed give the same asset.",
        json_schema_extra=_slider("Basic", 1),
    )
    pipeline_type: PipelineType | None = Field(
        None,
        title="Pipeline type",
        description="Resolution and route of the generation; left out, the service's default (see /health).",
        json_schema_extra={"group": "Basic", "choices": list(PIPELINE_TYPES)},
    )
    preview: Preview = Field(
        "video",
        title="Preview",
        description="video: a turntable; frames: also a sheet of stills in every render mode, and of a "
        "generation of one asset a light mesh before the turntable; none: nothing.",
        json_schema_extra={"group": "Basic"},
    )
    remove_background: bool = Field(
        True,
        title="Remove background",
        description="Cut the subject out; pictures with transparency keep their own matte.",
        json_schema_extra={"group": "Basic"},
    )
    subjects: Subjects = Field(
        "auto",
        title="Several objects",
        description="What to keep when several stand out; auto keeps all of a transparent picture.",
        json_schema_extra={"group": "Basic"},
    )
    texture: bool = Field(
        True,
        title="Texture",
        description="Off: the shape alone, in plain grey, in about half the time.",
        json_schema_extra={"group": "Basic"},
    )
    num_samples: int = Field(
        1,
        ge=1,
        le=MAX_SAMPLES,
        title="Variants",
        description="Assets of the seeds from seed on in one job, which costs less than as many jobs.",
        json_schema_extra=_slider("Basic", 1),
    )
    keep_latents: bool = Field(
        False,
        title="Keep latents",
        description="Put the shape's latents into the state (0.2 to 1.2 MB more at 512), so that it can be "
        "textured again or refined.",
        json_schema_extra={"group": "Basic"},
    )
    quality: Quality = Field(
        "exact",
        title="Sampling",
        description="fast leaves out the network at a third of the steps and forecasts it there, and "
        "multiplies in 8 bits on GPUs that do so faster: sooner, and a little different from exact.",
        json_schema_extra={"group": "Basic"},
    )
    views: list[ViewCamera] | None = Field(
        None,
        max_length=MAX_VIEWS,
        title="Views",
        description="For each picture the object's own side that it shows (front, left, back, right), or "
        "for all of them camera-to-world matrices (4x4, Z up). Several need them on pixel-aligned weights.",
    )
    fov: float | None = Field(
        None,
        ge=1.0,
        le=179.0,
        title="Field of view",
        description="Width of the view in degrees, for pixel-aligned weights; left out: 49.13, or 20 for "
        "named views. Try a smaller one (a longer lens) where proportions look wrong.",
        json_schema_extra=_slider(VIEWS, 1.0),
    )
    estimate_fov: bool = Field(
        False,
        title="Estimate the field of view",
        description="Of one picture, for pixel-aligned weights, where no fov is given; the service needs "
        "MoGe-2 for it.",
        json_schema_extra={"group": VIEWS},
    )
    view_mode: ViewMode = Field(
        "cycle",
        title="Several pictures",
        description="How weights that know one view use several, approximately: one a step in turn (cycle), "
        "or all in every step, which takes that much longer (average). Pixel-aligned weights that are told "
        "the side of each need neither.",
        json_schema_extra={"group": VIEWS},
    )
    export: ExtractSettings | None = Field(
        None,
        title="Export",
        description="Make the file in the same job: an extraction's fields, such as {'simplify': 'web'}.",
    )
    ss_sampling_steps: int = _steps(STRUCTURE, 12)
    ss_guidance_strength: float = _strength(STRUCTURE, 7.5)
    ss_guidance_rescale: float = _rescale(STRUCTURE, 0.7)
    ss_rescale_t: float = _rescale_t(STRUCTURE, 5.0)
    shape_slat_sampling_steps: int = _steps(SHAPE, 12)
    shape_slat_guidance_strength: float = _strength(SHAPE, 7.5)
    shape_slat_guidance_rescale: float = _rescale(SHAPE, 0.5)
    shape_slat_rescale_t: float = _rescale_t(SHAPE, 3.0)
    tex_slat_sampling_steps: int = _steps(TEXTURE, 12)
    tex_slat_guidance_strength: float = _strength(TEXTURE, 1.0)
    tex_slat_guidance_rescale: float = _rescale(TEXTURE, 0.0)
    tex_slat_rescale_t: float = _rescale_t(TEXTURE, 3.0)

    @model_validator(mode="after")
    def _seeds(self) -> Self:
        if self.seed + self.num_samples - 1 > MAX_SEED:
            raise ValueError(f"the last of {self.num_samples} seeds from {self.seed} on exceeds {MAX_SEED}")
        if self.export is not None and self.export.variant > self.num_samples:
            raise ValueError(f"export names variant {self.export.variant} of {self.num_samples}")
        return self

    @property
    def seeds(self) -> range:
        """Of the variants."""
        return range(self.seed, self.seed + self.num_samples)

    def sampler_params(self) -> dict[str, dict[str, float]]:
        """The three `*_sampler_params` arguments of `Trellis2ImageTo3DPipeline.run`: what was set, only.

        For the rest the weights' own settings hold: the published weights have the defaults above in their
        pipeline.json, smaller ones were tuned to others.
        """
        params: dict[str, dict[str, float]] = {argument: {} for argument in SAMPLER_STAGES.values()}
        for name, (argument, parameter) in SAMPLER_FIELDS.items():
            if name in self.model_fields_set:
                params[argument][parameter] = getattr(self, name)
        return params

    def given(self) -> dict[str, Any]:
        """The settings as a job keeps them: sampler fields only where they were set, everything else."""
        given = self.model_dump(exclude=SAMPLER_FIELDS.keys() - self.model_fields_set)
        return given | {"export": self.export and self.export.resolved().model_dump()}


class GenerateRequest(GenerateSettings):
    """Body of `POST /generate`: a picture, and the state or job whose shape is to stay, if any."""

    image: str | None = Field(
        None,
        min_length=1,
        title="Picture",
        description="PNG, JPEG or WebP in base64 (a data: URL is taken too).",
        json_schema_extra={"contentEncoding": "base64"},
    )
    images: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_VIEWS,
        title="Pictures",
        description="In place of image: up to 8 views of one object, each as image.",
    )
    image_url: str | None = Field(
        None,
        min_length=1,
        max_length=2_000,
        title="Address of the picture",
        description="In place of image, where the operator allows it: the service fetches it (https only).",
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        max_length=2_000,
        title="Prompt",
        description="In place of image, where the operator has plugged in an image generator.",
    )
    state: str | None = Field(
        None,
        min_length=1,
        title="State",
        description="One with latents, in base64: its shape stays, and its texture is made anew; a cascade "
        "refines a shape of 512.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    job: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        title="Job",
        description="In place of state: the job that made it.",
    )
    variant: int = Field(1, ge=1, le=MAX_SAMPLES, title="Variant", description="Of the job; 1 is the first.")

    model: str | None = Field(
        None,
        max_length=200,
        title="Model",
        description="As /health names it, for callers that must name one; another is refused.",
    )

    @model_validator(mode="after")
    def _inputs(self) -> GenerateRequest:
        if sum(given is not None for given in (self.image, self.images, self.image_url, self.prompt)) != 1:
            raise ValueError("give one of image, images (several views), image_url and prompt")
        if self.state is not None and self.job is not None:
            raise ValueError("give at most one of state and job")
        return self

    def settings(self) -> GenerateSettings:
        return self.part(GenerateSettings)


class ExtractSettings(Strict):
    """Everything about an extraction but the state.

    A field goes to the argument of its name of `o_voxel.postprocess.to_glb` or of `GlbAsset.export`.
    """

    simplify: PresetName | None = Field(
        None,
        title="Budget",
        description="A preset by name; fields given beside it win over the preset's.",
        json_schema_extra={"group": "Basic"},
    )
    decimation_target: int = Field(
        500_000,
        ge=2_000,
        le=1_000_000,
        title="Faces",
        description="Face budget of the mesh.",
        json_schema_extra=_slider("Basic", 1_000),
    )
    texture_size: int = Field(
        2_048,
        ge=256,
        le=4_096,
        multiple_of=256,
        title="Texture size",
        description="Side of the square textures in pixels.",
        json_schema_extra=_slider("Basic", 256),
    )
    format: AssetFormat = Field(
        "glb",
        title="Format",
        description="glb, usdz and obj carry textures, 3mf and ply vertex colours, stl the shape alone.",
        json_schema_extra={"group": "Basic"},
    )
    size_mm: float = Field(
        100.0,
        ge=1.0,
        le=5_000.0,
        title="Longest side (mm)",
        description="Size of a file for printing (stl, 3mf), in millimetres.",
        json_schema_extra=_slider("Size", 1.0),
    )
    wall_mm: float = Field(
        0.0,
        ge=0.0,
        le=100.0,
        title="Thinnest wall (mm)",
        description="With Outer shell only: thinner parts are made so many millimetres thick, at the size "
        "of the print; 0 leaves them.",
        json_schema_extra=_slider("Size", 0.1),
    )
    flat_base: bool = Field(
        False,
        title="Flat base",
        description="With Outer shell only: press the lowest 1.5 % flat, so that a print stands.",
        json_schema_extra={"group": "Size"},
    )
    size_m: float | None = Field(
        None,
        ge=0.001,
        le=1_000.0,
        title="Longest side (m)",
        description="Size in metres, of formats not for printing; left out: as generated, within 1 m.",
        json_schema_extra=_slider("Size", 0.01),
    )
    pivot: Pivot = Field(
        "origin",
        title="Pivot",
        description="What lies at the origin: the generation's own (origin), the middle of the underside "
        "(base), or of the asset (center). Files for printing stand on their base.",
        json_schema_extra={"group": "Size"},
    )
    lods: int = Field(
        1,
        ge=1,
        le=6,
        title="Levels of detail",
        description="In one glb (MSFT_lod): each has a quarter of the faces and texels of the one before.",
        json_schema_extra=_slider("Game", 1),
    )
    collision: bool = Field(
        False,
        title="Collision hull",
        description="Add a convex shape for physics to a glb (OMI_physics_shape); it is not drawn.",
        json_schema_extra={"group": "Game"},
    )
    alpha_mode: AlphaMode = Field(
        "auto",
        title="Transparency",
        description="auto blends only when a visible part of the asset is see-through.",
        json_schema_extra={"group": "Textures"},
    )
    texture_format: TextureFormat = Field(
        "jpeg",
        title="Texture format",
        description="jpeg and png open everywhere, png without loss; webp is smallest, where it is read. "
        "A map that a format would damage is in another: png for jpeg, and above 2048 pixels jpeg for webp.",
        json_schema_extra={"group": "Textures"},
    )
    compress: Compression = Field(
        "none",
        title="Compression",
        description="Of a glb's geometry: draco is smallest, meshopt fast to decode; viewers must know it.",
        json_schema_extra={"group": "Textures"},
    )
    quantize: bool = Field(
        False,
        title="Compact geometry",
        description="Store a glb's arrays in 16 and 8 bits: web viewers, engines and Blender read it, Open3D "
        "and MeshLab misread it.",
        json_schema_extra={"group": "Textures"},
    )
    normal_map: bool = Field(
        False,
        title="Normal map",
        description="Bake the fine surface's normals, so that few faces still show its detail.",
        json_schema_extra={"group": "Textures"},
    )
    occlusion: bool = Field(
        False,
        title="Ambient occlusion",
        description="Bake the shade of creases into the red channel beside roughness and metalness (ORM).",
        json_schema_extra={"group": "Textures"},
    )
    remesh: Remesh = Field(
        "auto",
        title="Remesh",
        description="auto rebuilds a frayed or open surface as a closed one and leaves a sound one as it is; "
        "true rebuilds any, false none.",
        json_schema_extra={"group": "Remeshing"},
    )
    remesh_band: float = Field(
        1.0,
        ge=0.5,
        le=4.0,
        title="Remesh band",
        description="Half width in voxels of the band that is rebuilt around the surface.",
        json_schema_extra=_slider("Remeshing", 0.1),
    )
    remesh_project: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        title="Remesh projection",
        description="How far the rebuilt surface is pulled back onto the original.",
        json_schema_extra=_slider("Remeshing", 0.05),
    )
    outer_shell: bool | None = Field(
        None,
        title="Outer shell only",
        description="With Remesh: drop what the outside cannot reach; left out: unless it is translucent.",
        json_schema_extra={"group": "Remeshing"},
    )

    variant: int = Field(
        1, ge=1, le=MAX_SAMPLES, title="Variant", description="Of a job with several; 1 is the first."
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        title="Name",
        description="Of the asset inside a glb, such as the picture's; left out: asset.",
    )

    def resolved(self) -> ExtractSettings:
        """The settings with the preset's values filled in where the caller gave none."""
        if self.simplify is None:
            return self
        preset = PRESETS[self.simplify].settings
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return ExtractSettings.model_validate(preset | given)


class ExtractRequest(ExtractSettings):
    """Body of `POST /extract_glb`: a state, or the id of a finished generation of the same key."""

    state: str | None = Field(
        None,
        min_length=1,
        title="State",
        description="The state of a generation, in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    job: str | None = Field(
        None, min_length=1, max_length=100, title="Job", description="Id of a finished generation."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ExtractRequest:
        if (self.state is None) == (self.job is None):
            raise ValueError("give exactly one of state and job")
        return self

    def settings(self) -> ExtractSettings:
        return self.part(ExtractSettings)


def _as_of(model: type[BaseModel], name: str) -> Any:
    """The field of another call: its default, bounds, title and help."""
    return copy(model.model_fields[name])


class TextureSettings(Strict):
    """Everything about new textures but the mesh and the pictures."""

    seed: int = _as_of(GenerateSettings, "seed")
    pipeline_type: TextureType | None = Field(
        None,
        title="Resolution",
        description="Voxels along a side that carry the texture; left out, that of the state, or of the "
        "weights' default type where they have it, else the finest.",
        json_schema_extra={"group": "Basic", "choices": list(TEXTURE_TYPES)},
    )
    new_uvs: bool = Field(
        False,
        title="New UVs",
        description="Unwrap anew; a mesh without texture coordinates is unwrapped in any case.",
        json_schema_extra={"group": "Basic"},
    )
    texture_size: int = _as_of(ExtractSettings, "texture_size")
    texture_format: TextureFormat = _as_of(ExtractSettings, "texture_format")
    alpha_mode: AlphaMode = _as_of(ExtractSettings, "alpha_mode")
    preview: Preview = _as_of(GenerateSettings, "preview")
    remove_background: bool = _as_of(GenerateSettings, "remove_background")
    subjects: Subjects = _as_of(GenerateSettings, "subjects")
    quality: Quality = _as_of(GenerateSettings, "quality")
    view_mode: ViewMode = _as_of(GenerateSettings, "view_mode")
    tex_slat_sampling_steps: int = _as_of(GenerateSettings, "tex_slat_sampling_steps")
    tex_slat_guidance_strength: float = _as_of(GenerateSettings, "tex_slat_guidance_strength")
    tex_slat_guidance_rescale: float = _as_of(GenerateSettings, "tex_slat_guidance_rescale")
    tex_slat_rescale_t: float = _as_of(GenerateSettings, "tex_slat_rescale_t")

    def sampler_params(self) -> dict[str, float]:
        """`tex_slat_sampler_params` of the pipeline: what was set, only."""
        return {
            SAMPLER_FIELDS[name][1]: getattr(self, name)
            for name in SAMPLER_FIELDS.keys() & self.model_fields_set
        }

    def given(self) -> dict[str, Any]:
        """The settings as a job keeps them: sampler fields only where they were set, everything else."""
        return self.model_dump(exclude=SAMPLER_FIELDS.keys() - self.model_fields_set)


class TextureRequest(TextureSettings):
    """Body of `POST /texture`: a mesh, and a picture or several views of what it shall look like."""

    mesh: str | None = Field(
        None,
        min_length=1,
        title="Mesh",
        description="GLB, OBJ, PLY or STL in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    image: str | None = _as_of(GenerateRequest, "image")
    images: list[str] | None = _as_of(GenerateRequest, "images")

    @model_validator(mode="after")
    def _inputs(self) -> TextureRequest:
        if (self.image is None) == (self.images is None):
            raise ValueError("give image, or images for several views")
        if self.mesh is None:
            raise ValueError("give mesh")
        return self

    def settings(self) -> TextureSettings:
        return self.part(TextureSettings)


CALLBACK_URL: Any = Field(
    None,
    min_length=1,
    max_length=2_000,
    title="Callback",
    description="Is told of the job's end by a signed POST (https only); needs the scope webhook.",
)


class GenerateSubmission(GenerateRequest):
    """Body of `POST /jobs` for a generation."""

    kind: Literal["generate"]
    callback_url: str | None = CALLBACK_URL


class ExtractSubmission(ExtractRequest):
    """Body of `POST /jobs` for an extraction."""

    kind: Literal["extract"]
    callback_url: str | None = CALLBACK_URL


class TextureSubmission(TextureRequest):
    """Body of `POST /jobs` for new textures."""

    kind: Literal["texture"]
    callback_url: str | None = CALLBACK_URL


Submission = Annotated[
    GenerateSubmission | ExtractSubmission | TextureSubmission, Field(discriminator="kind")
]


class GenerateEstimate(GenerateSettings):
    """Body of `POST /estimate` for a generation."""

    kind: Literal["generate"]


class ExtractEstimate(ExtractSettings):
    """Body of `POST /estimate` for an extraction."""

    kind: Literal["extract"]


class TextureEstimate(TextureSettings):
    """Body of `POST /estimate` for new textures."""

    kind: Literal["texture"]


AnyEstimate = GenerateEstimate | ExtractEstimate | TextureEstimate
EstimateRequest = Annotated[AnyEstimate, Field(discriminator="kind")]


class MatteSettings(Strict):
    """Everything about a matte but its pictures."""

    subjects: Subjects = Field("auto", title="Several objects", description="As of a generation.")
    box: list[Fraction] | None = Field(
        None,
        min_length=4,
        max_length=4,
        title="Box",
        description="Left, top, right and bottom of the subject in fractions of the picture; what is outside "
        "is removed.",
    )
    attempt: int = Field(
        1,
        ge=1,
        le=MAX_ATTEMPTS,
        title="Attempt",
        description=f"2 to {MAX_ATTEMPTS} are other ways to cut, for when the first one is wrong.",
    )
    crop: bool = Field(
        True,
        title="Crop",
        description="Crop to the subject, as the model does; false gives the whole picture.",
    )

    @model_validator(mode="after")
    def _box_in_order(self) -> Self:
        if self.box is not None and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("box is left, top, right and bottom: right and bottom are the larger ones")
        return self


class MatteRequest(MatteSettings):
    """Body of `POST /matte`."""

    image: str = Field(min_length=1, title="Picture", description="PNG, JPEG or WebP in base64.")
    trimap: str | None = Field(
        None,
        min_length=1,
        title="Trimap",
        description="What was painted over the picture, as a grey PNG in base64: white is kept, black is "
        "removed, mid-grey (128) says nothing.",
    )


def default_pipeline_type(offered: tuple[str, ...] | list[str], own: str = "") -> str:
    """The pipeline type used when a request names none: the weights' `own` where it is offered. Raises
    ValueError when nothing is offered.
    """
    for name in (own, *PREFERRED_PIPELINE_TYPES):
        if name in offered:
            return name
    raise ValueError("the loaded weights offer no pipeline type")


def default_texture_type(offered: tuple[str, ...] | list[str], own: str = "") -> str:
    """The resolution at which a mesh is textured when a request names none: the weights' `own` where it is
    one, else the finest.
    """
    return own if own in offered else offered[-1]
