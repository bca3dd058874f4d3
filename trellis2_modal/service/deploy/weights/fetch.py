"""Fills a weights folder: every file is downloaded, checked by size and digest, and never written again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ...config import STRUCTURE_DECODER_MODEL, STRUCTURE_DECODER_REVISION, DeploySettings
from .. import dinov3_timm
from .hub import UPSAMPLER_REPO, Hub, RemoteFile, Snapshot, check_file
from .known import PUBLISHED_FILES
from .manifest import (
    COMMON_MODELS,
    ENCODER_FOLDER,
    MARKER,
    PIPELINE_CONFIG,
    PIXEL_VIEWS,
    REMOVER_FOLDER,
    REQUIRED_MODELS,
    TEXTURING_CONFIG,
    Manifest,
    StoredFile,
    WeightsError,
    check_folder,
    needs_conversion,
    offered_types,
    own_samplers,
    split_model_path,
    texturing_encoder,
    weights_folder,
)

logger = logging.getLogger(__name__)

PARALLEL = 4
TIMM_WEIGHTS = "model.safetensors"
PART_SUFFIXES = (".json", ".py", ".safetensors")
"""Of an encoder or remover: what transformers reads. Other formats of the same weights stay on the hub."""


@dataclass(frozen=True)
class Item:
    """A file to fetch, and where it goes inside the folder."""

    repo: str
    commit: str
    remote: RemoteFile
    target: str


UPSAMPLER = Item(
    UPSAMPLER_REPO,
    "releases",
    RemoteFile("naf_release.pth", 0, "c096c1ab2217a5c3ac136365f721685e2201379cb69d509cfb0261183847c98f"),
    "naf_release.pth",
)
"""NAF's weights, which pixel-aligned models read: no file of the hub."""


def fetch_upsampler(folder: Path, hub: Hub) -> Path:
    """NAF's weights in a folder, downloaded where they are not there. Raises `WeightsError`."""
    return folder / _fetch_one(UPSAMPLER, folder, hub, lambda: None).path


def fetch(
    settings: DeploySettings, root: Path, hub: Hub, saved: Callable[[], None] = lambda: None
) -> Manifest:
    """The manifest of the complete folder of this choice, which is filled first where it is not complete.

    `saved` is called after each file (to commit a volume), so that a download that was cut off goes on where
    it stopped. Raises `WeightsError`.
    """
    folder = weights_folder(settings, root)
    if (folder / MARKER).exists():
        logger.info("the weights are complete: %s", folder)
        return check_folder(folder)
    started = time.perf_counter()
    model = hub.snapshot(settings.source.repo, settings.revision)
    config = Item(model.repo, model.commit, model.file(settings.source.config_file), PIPELINE_CONFIG)
    stored = [_fetch_one(config, folder, hub, saved)]
    document = json.loads((folder / PIPELINE_CONFIG).read_text())
    pipeline, args = str(document["name"]), dict(document["args"])
    if pipeline in PIXEL_VIEWS:  # whatever they name: see `trellis2.pipelines.config.with_known_parts`
        args |= {"image_cond_model": True, "rembg_model": True}
    models = {name: value for name, value in args["models"].items() if name in wanted_models()}
    if not offered_types(models, pipeline):
        raise WeightsError(
            f"{settings.model} lists {', '.join(sorted(models)) or 'no models'}, "
            "which is not enough for any pipeline type; check TRELLIS2_MODEL"
        )
    if any(file.path == TEXTURING_CONFIG for file in model.files):
        config = Item(model.repo, model.commit, model.file(TEXTURING_CONFIG), TEXTURING_CONFIG)
        stored.append(_fetch_one(config, folder, hub, saved))
        models |= texturing_encoder(json.loads((folder / TEXTURING_CONFIG).read_text()))
    own = own_parts(args, model)
    others = {name: value for name, value in args.items() if name not in own}
    items = [*model_items([*models.values(), *own.values()], model, hub), *part_items(settings, others, hub)]
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
        stored += pool.map(lambda item: _fetch_one(item, folder, hub, saved), items)
    if needs_conversion(settings.image_encoder) and others.get("image_cond_model"):
        stored += _convert_encoder(settings, folder, hub)
    if pipeline in PIXEL_VIEWS:
        stored.append(_fetch_one(UPSAMPLER, folder, hub, saved))
    manifest = Manifest(
        settings.model,
        model.commit,
        settings.image_encoder,
        settings.background_remover,
        tuple(models),
        tuple(stored),
        own_samplers(args),
        pipeline,
        only_types=tuple(args.get("pipeline_types", ())),
        default_type=str(args.get("default_pipeline_type", "")),
    )
    partial = folder / f"{MARKER}.part"
    partial.write_bytes(manifest.dump())
    os.replace(partial, folder / MARKER)
    saved()
    gigabytes = sum(file.size for file in stored) / 1e9
    logger.info("weights complete: %.1f GB in %.0f s, %s", gigabytes, time.perf_counter() - started, folder)
    return manifest


def wanted_models() -> set[str]:
    """Names in the config's `models` that generation uses; encoders of the autoencoders are not needed."""
    return {name for names in (COMMON_MODELS, *REQUIRED_MODELS.values()) for name in names}


def model_items(values: Iterable[str], model: Snapshot, hub: Hub) -> Iterator[Item]:
    """Config and weights of each model; those of another repository go into a folder of its name."""
    others: dict[str, Snapshot] = {}
    for value in dict.fromkeys(values):
        repo, stem = split_model_path(value, model.repo)
        snapshot = model
        if repo != model.repo:
            if repo not in others:
                revision = STRUCTURE_DECODER_REVISION if repo == STRUCTURE_DECODER_MODEL else "main"
                others[repo] = hub.snapshot(repo, revision)
            snapshot = others[repo]
        for suffix in (".json", ".safetensors"):
            remote = _known(snapshot, stem + suffix)
            target = remote.path if repo == model.repo else f"{repo}/{remote.path}"
            yield Item(repo, snapshot.commit, remote, target)


def own_parts(args: Mapping[str, object], model: Snapshot) -> dict[str, str]:
    """Stems of what else reads pictures and lies in the model's own repository, by its name in the
    config: the small networks of weights like the bundled ones.
    """
    stems = {name: args.get(name) for name in ("pixel_source", "structure_refiner")}
    for key in ("image_cond_model", "rembg_model"):
        entry = args.get(key)
        stems[key] = entry.get("args", {}).get("model_name") if isinstance(entry, dict) else None
    paths = {file.path for file in model.files}
    return {key: str(stem) for key, stem in stems.items() if stem and f"{stem}.json" in paths}


def part_items(settings: DeploySettings, args: dict[str, object], hub: Hub) -> Iterator[Item]:
    """The files of the image encoder and of the background remover that transformers loads."""
    for key, repo, revision, folder in (
        ("image_cond_model", settings.image_encoder, settings.image_encoder_revision, ENCODER_FOLDER),
        ("rembg_model", settings.background_remover, settings.background_remover_revision, REMOVER_FOLDER),
    ):
        if not args.get(key) or (folder == ENCODER_FOLDER and needs_conversion(repo)):
            continue
        snapshot = hub.snapshot(repo, revision)
        found = [f for f in snapshot.files if "/" not in f.path and f.path.endswith(PART_SUFFIXES)]
        if not any(f.path.endswith(".safetensors") for f in found):
            raise WeightsError(
                f"{repo} has no safetensors file at {snapshot.commit[:12]}; choose another copy"
            )
        for remote in found:
            yield Item(repo, snapshot.commit, remote, f"{folder}/{remote.path}")


def _known(snapshot: Snapshot, path: str) -> RemoteFile:
    """The hub's file, with the digest that we know of it where we know one."""
    remote = snapshot.file(path)
    known = PUBLISHED_FILES.get((snapshot.repo, snapshot.commit, path))
    return remote if known is None else replace(remote, size=known[0], sha256=known[1] or remote.sha256)


def _fetch_one(item: Item, folder: Path, hub: Hub, saved: Callable[[], None]) -> StoredFile:
    target = folder / item.target
    if target.exists():  # of an earlier run that was cut off: files get their name when they are checked
        digest = check_file(target, item.remote)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        started = time.perf_counter()
        hub.download(item.repo, item.commit, item.remote.path, partial)
        digest = check_file(partial, item.remote)
        os.replace(partial, target)
        seconds = max(time.perf_counter() - started, 1e-6)
        size = target.stat().st_size
        logger.info("%s: %.0f MB at %.0f MB/s", item.target, size / 1e6, size / 1e6 / seconds)
        saved()
    return StoredFile(item.target, target.stat().st_size, digest, item.repo, item.commit)


def _convert_encoder(settings: DeploySettings, folder: Path, hub: Hub) -> list[StoredFile]:
    """timm's weights under transformers' names; the original is not kept."""
    snapshot = hub.snapshot(settings.image_encoder, settings.image_encoder_revision)
    target = folder / ENCODER_FOLDER
    source = folder / f"{ENCODER_FOLDER}.part"
    folder.mkdir(parents=True, exist_ok=True)
    hub.download(snapshot.repo, snapshot.commit, TIMM_WEIGHTS, source)
    check_file(source, snapshot.file(TIMM_WEIGHTS))
    try:
        dinov3_timm.convert(target, source)
    except (ValueError, KeyError) as error:
        raise WeightsError(f"{settings.image_encoder} is no DINOv3 ViT of timm: {error}") from error
    source.unlink()
    return [
        StoredFile(
            f"{ENCODER_FOLDER}/{path.name}",
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            snapshot.repo,
            snapshot.commit,
        )
        for path in sorted(target.iterdir())
    ]
