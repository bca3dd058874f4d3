"""Which files the model is made of, where they lie, and when a weights folder is whole.

A folder on the weights Volume is named after everything that was chosen, is filled once, and is complete when
`complete.json` is in it. It is never written again: memory snapshots may depend on its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ....protocol.requests import SAMPLER_FIELDS, SAMPLER_STAGES, TEXTURE_TYPES
from ...config import (
    BUNDLED_MODEL,
    BUNDLED_WEIGHTS,
    OPEN_ENCODER,
    DeploySettings,
)

WEIGHTS_ROOT = "/weights"
MARKER = "complete.json"
PIPELINE_CONFIG = "pipeline.json"
TEXTURING_CONFIG = "texturing_pipeline.json"
DOWNLOAD_COMMAND = "modal run -m trellis2_modal.service.deploy.weights.download::download_weights"

ENCODER_FOLDER = "image_encoder"
REMOVER_FOLDER = "background_remover"

REQUIRED_MODELS: Mapping[str, tuple[str, ...]] = {
    "512": ("shape_slat_flow_model_512", "tex_slat_flow_model_512"),
    "1024": ("shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
    "1024_cascade": ("shape_slat_flow_model_512", "shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
    "1536_cascade": ("shape_slat_flow_model_512", "shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
}
"""Pipeline type to the models that it needs beside the decoders and the sparse-structure flow."""

PIXEL_VIEWS: Mapping[str, tuple[int, int, bool]] = {
    "Pixal3DImageTo3DPipeline": (1, 1, True),
    "Pixal3DMVImageTo3DPipeline": (2, 8, True),
}
"""Pixel-aligned pipelines, by the class in their config: see `Manifest.views`."""

COMMON_MODELS = (
    "sparse_structure_flow_model",
    "sparse_structure_decoder",
    "shape_slat_decoder",
    "tex_slat_decoder",
)


class WeightsError(Exception):
    """The weights are absent, half there or not what was asked for; the text says what to run."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a complete folder; `path` is relative to it."""

    path: str
    size: int
    sha256: str
    repo: str
    commit: str


@dataclass(frozen=True)
class Manifest:
    """What a complete folder holds: `complete.json`. The two image models are folders inside it."""

    model: str
    revision: str
    image_encoder: str
    background_remover: str
    models: tuple[str, ...]
    files: tuple[StoredFile, ...] = field(default=())
    samplers: dict[str, float] = field(default_factory=dict)
    """The weights' own sampler settings by request field; none in folders filled by earlier versions."""
    pipeline: str = ""
    """Class in the pipeline's config."""
    only_types: tuple[str, ...] = ()
    """The pipeline types that the weights were made for; none: all that their models can run."""
    default_type: str = ""
    """The pipeline type that the weights name as theirs."""

    def dump(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @property
    def pipeline_types(self) -> tuple[str, ...]:
        types = offered_types(self.models, self.pipeline)
        return tuple(name for name in types if name in self.only_types) if self.only_types else types

    @property
    def texture_types(self) -> tuple[str, ...]:
        """The resolutions at which meshes can be textured."""
        if "shape_slat_encoder" not in self.models:
            return ()
        return tuple(name for name in TEXTURE_TYPES if f"tex_slat_flow_model_{name}" in self.models)

    @property
    def views(self) -> tuple[int, int, bool]:
        """Fewest and most views that the weights were trained on, and whether they know cameras."""
        return PIXEL_VIEWS.get(self.pipeline, (1, 1, False))


def parse_manifest(data: bytes) -> Manifest:
    """Raises `WeightsError` for anything else than what `Manifest.dump` wrote."""
    try:
        raw = json.loads(data)
        files = tuple(StoredFile(**entry) for entry in raw.pop("files"))
        samplers = {str(name): float(value) for name, value in raw.pop("samplers", {}).items()}
        lists = {name: tuple(raw[name]) for name in ("models", "only_types") if name in raw}
        return Manifest(**(raw | lists), files=files, samplers=samplers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{MARKER} cannot be read ({error!r}); run: {DOWNLOAD_COMMAND}") from error


def folder_name(settings: DeploySettings) -> str:
    """Name of the weights folder of a choice: model, revision, and a digest of the whole choice."""
    parts = (
        settings.model,
        settings.revision,
        settings.image_encoder,
        settings.image_encoder_revision,
        settings.background_remover,
        settings.background_remover_revision,
    )
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
    return f"{settings.model.rpartition('/')[2]}-{settings.revision[:12]}-{digest}"


def weights_folder(settings: DeploySettings, root: Path = Path(WEIGHTS_ROOT)) -> Path:
    """Where the weights of a choice lie: on the volume, or beside the code when they are the bundled ones."""
    return BUNDLED_WEIGHTS if settings.model == BUNDLED_MODEL else root / folder_name(settings)


def bundled_manifest(folder: Path = BUNDLED_WEIGHTS) -> Manifest:
    """The manifest of the bundled weights, of which only the config needs to be there."""
    try:
        config = json.loads((folder / PIPELINE_CONFIG).read_text())
        args = config["args"]
        models = tuple(args["models"])
        if (folder / TEXTURING_CONFIG).is_file():
            models += tuple(texturing_encoder(json.loads((folder / TEXTURING_CONFIG).read_text())))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} has no readable {PIPELINE_CONFIG} ({error!r}); deploy from a clone of the repository: "
            "modal deploy -m trellis2_modal.service.service"
        ) from error
    encoder, remover = (
        str((args.get(key) or {}).get("name", "")) for key in ("image_cond_model", "rembg_model")
    )
    name = str(config["name"])
    return Manifest(
        BUNDLED_MODEL,
        "",
        encoder,
        remover,
        models,
        samplers=own_samplers(args),
        pipeline=name,
        only_types=tuple(args.get("pipeline_types", ())),
        default_type=str(args.get("default_pipeline_type", "")),
    )


def texturing_encoder(config: Mapping[str, Any]) -> dict[str, str]:
    """The one model that texturing meshes needs beyond a generation's, by name, of a texturing config."""
    return {name: value for name, value in config["args"]["models"].items() if name == "shape_slat_encoder"}


def own_samplers(args: Mapping[str, Any]) -> dict[str, float]:
    """The sampler settings of a pipeline's config, by request field."""
    params = {
        argument: _params(args.get(argument.removesuffix("_params"))) for argument in SAMPLER_STAGES.values()
    }
    return {
        field: float(params[argument][parameter])
        for field, (argument, parameter) in SAMPLER_FIELDS.items()
        if isinstance(params[argument].get(parameter), (int, float))
    }


def _params(sampler: Any) -> dict[str, Any]:
    found = sampler.get("params") if isinstance(sampler, dict) else None
    return found if isinstance(found, dict) else {}


def offered_types(models: Collection[str], pipeline: str = "") -> tuple[str, ...]:
    """The pipeline types that a set of models can run; pixel-aligned ones were trained for cascades alone."""
    return tuple(
        name
        for name, wanted in REQUIRED_MODELS.items()
        if set(wanted) | set(COMMON_MODELS) <= set(models)
        and (pipeline not in PIXEL_VIEWS or name.endswith("_cascade"))
    )


def split_model_path(value: str, model: str) -> tuple[str, str]:
    """Repository and stem of an entry of the config's `models`; `owner/repo/...` is another repository."""
    parts = value.split("/")
    return ("/".join(parts[:2]), "/".join(parts[2:])) if len(parts) > 2 else (model, value)


def needs_conversion(encoder: str) -> bool:
    """Whether the encoder's repository keeps the weights under another library's names."""
    return encoder == OPEN_ENCODER


def check_folder(folder: Path) -> Manifest:
    """The manifest of a complete folder, every file there in its full size.

    Raises `WeightsError` for one that is absent, half-downloaded or damaged.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not on the weights volume; run: {DOWNLOAD_COMMAND}")
    if not (folder / MARKER).is_file():
        raise WeightsError(
            f"{folder} has no {MARKER}: its download has not ended; run again: {DOWNLOAD_COMMAND}"
        )
    manifest = parse_manifest((folder / MARKER).read_bytes())
    for file in manifest.files:
        path = folder / file.path
        found = path.stat().st_size if path.is_file() else 0
        if found != file.size:
            raise WeightsError(
                f"{path} has {found} bytes, {file.size} were downloaded; choose another "
                f"TRELLIS2_WEIGHTS_VOLUME and run: {DOWNLOAD_COMMAND}"
            )
    return manifest
