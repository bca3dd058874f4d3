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

from ...protocol.requests import SAMPLER_FIELDS, SAMPLER_STAGES
from ..config import (
    BUNDLED_MODEL,
    BUNDLED_WEIGHTS,
    OPEN_ENCODER,
    PUBLISHED_MODEL,
    PUBLISHED_REVISION,
    STRUCTURE_DECODER_MODEL,
    STRUCTURE_DECODER_REVISION,
    DeploySettings,
)

WEIGHTS_ROOT = "/weights"
MARKER = "complete.json"
PIPELINE_CONFIG = "pipeline.json"
DOWNLOAD_COMMAND = "modal run -m trellis2_modal.service.deploy.weights::download_weights"

ENCODER_FOLDER = "image_encoder"
REMOVER_FOLDER = "background_remover"

REQUIRED_MODELS: Mapping[str, tuple[str, ...]] = {
    "512": ("shape_slat_flow_model_512", "tex_slat_flow_model_512"),
    "1024": ("shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
    "1024_cascade": ("shape_slat_flow_model_512", "shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
    "1536_cascade": ("shape_slat_flow_model_512", "shape_slat_flow_model_1024", "tex_slat_flow_model_1024"),
}
"""Pipeline type to the models that it needs beside the decoders and the sparse-structure flow."""

COMMON_MODELS = (
    "sparse_structure_flow_model",
    "sparse_structure_decoder",
    "shape_slat_decoder",
    "tex_slat_decoder",
)

_FLOW = "ckpts/slat_flow_img"
PUBLISHED_FILES: Mapping[tuple[str, str, str], tuple[int, str]] = {
    (repo, revision, path): (size, sha256)
    for repo, revision, path, size, sha256 in (
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/ss_flow_img_dit_1_3B_64_bf16.safetensors",
            2584426920,
            "ca01377c485bec418076d38ee80166d32dc776d744f2553b835cba1e97a7abf6",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/ss_flow_img_dit_1_3B_64_bf16.json",
            467,
            "6cdfb636854f60ffcadd8c49244169cd449f34c5ccdb55b5ff7c04678f9c399e",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}2shape_dit_1_3B_512_bf16.safetensors",
            2584574424,
            "ec5e0917ef9b7e25ad51dffc7d19687a42019871f94239f2fa7f86264c55b70f",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}2shape_dit_1_3B_512_bf16.json",
            458,
            "ddbd7a1d34ce9a8e7af2f6ef9ae686d9ab49f69e62dacb98d8409b511cdbd5e2",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}2shape_dit_1_3B_1024_bf16.safetensors",
            2584574424,
            "07cd0596f634c5adc1890023d16023afc5eed02fb84b22bb23aff5bf0030fbbd",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}2shape_dit_1_3B_1024_bf16.json",
            458,
            "7ebd6d367393f52fee9e92c2b3d727a9026a338549c6a6fa84c7ea122140ffdd",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}shape2tex_dit_1_3B_512_bf16.safetensors",
            2584672728,
            "8371aa1c5d13be79dcd5ddfd2cf3835e902e204dc34427169a1c702828e1a94d",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}shape2tex_dit_1_3B_512_bf16.json",
            458,
            "3093796257a62f838d2e5578ac4580ca3b7d88d10b87d348065d3fdfcc4c2077",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}shape2tex_dit_1_3B_1024_bf16.safetensors",
            2584672728,
            "580401269059a339b8318ab9ced459a13ba63391721c83a6c383198c29e77686",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            f"{_FLOW}shape2tex_dit_1_3B_1024_bf16.json",
            458,
            "31f4fdad9974930e5e9324ac9dfb6ef7de6b30cea51854ba515ef827a8d353b2",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/shape_dec_next_dc_f16c32_fp16.safetensors",
            948490494,
            "e3b718d3e43e4f8780e9a24ac6fff231811a67e3b058e336e10fe654c911d581",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/shape_dec_next_dc_f16c32_fp16.json",
            678,
            "5f1b856dffce79466fb18f5f0eefc08f08c673b24b3c05b20359c0b6d318a209",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/tex_dec_next_dc_f16c32_fp16.safetensors",
            948458812,
            "97ea69addea2ecd9312910f5f548234665eef51c088386180b7cd5b258645e3c",
        ),
        (
            PUBLISHED_MODEL,
            PUBLISHED_REVISION,
            "ckpts/tex_dec_next_dc_f16c32_fp16.json",
            705,
            "22074e4ab5b28e2b72d33a3fe61bf416134b89e12d0fc5c729f37da75da0c4d1",
        ),
        (
            STRUCTURE_DECODER_MODEL,
            STRUCTURE_DECODER_REVISION,
            "ckpts/ss_dec_conv3d_16l8_fp16.safetensors",
            147591972,
            "1c76d4a40519aa2d711cc263a8404105231ac26db31d946bed48b84fee79009a",
        ),
        (
            STRUCTURE_DECODER_MODEL,
            STRUCTURE_DECODER_REVISION,
            "ckpts/ss_dec_conv3d_16l8_fp16.json",
            245,
            "646781293f1cda74720de85d1cef50a957fb4aebd9a4bd014e454e32f2330ac5",
        ),
    )
}
"""(repository, revision, file) to bytes and SHA-256, known without asking the hub."""


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

    def dump(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @property
    def pipeline_types(self) -> tuple[str, ...]:
        return offered_types(self.models)


def parse_manifest(data: bytes) -> Manifest:
    """Raises `WeightsError` for anything else than what `Manifest.dump` wrote."""
    try:
        raw = json.loads(data)
        files = tuple(StoredFile(**entry) for entry in raw.pop("files"))
        samplers = {str(name): float(value) for name, value in raw.pop("samplers", {}).items()}
        return Manifest(**(raw | {"models": tuple(raw["models"])}), files=files, samplers=samplers)
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
        args = json.loads((folder / PIPELINE_CONFIG).read_text())["args"]
        models = tuple(args["models"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} has no readable {PIPELINE_CONFIG} ({error!r}); deploy from a clone of the repository: "
            "modal deploy -m trellis2_modal.service.service"
        ) from error
    encoder, remover = (
        str((args.get(key) or {}).get("name", "")) for key in ("image_cond_model", "rembg_model")
    )
    return Manifest(BUNDLED_MODEL, "", encoder, remover, models, samplers=own_samplers(args))


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


def offered_types(models: Collection[str]) -> tuple[str, ...]:
    """The pipeline types that a set of models can run."""
    return tuple(
        name for name, wanted in REQUIRED_MODELS.items() if set(wanted) | set(COMMON_MODELS) <= set(models)
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
