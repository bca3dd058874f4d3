"""Checkpoints as published: `<stem>.json` (class name and arguments) beside `<stem>.safetensors`."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, InvalidArgumentError
from ..nn.precision import as_dtype
from .base import Model
from .registry import MODELS, model_class
from .streaming_loader import Entry, read_header, read_into

log = logging.getLogger(__name__)


def from_pretrained(
    path: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    strict: bool = True,
    **overrides: Any,
) -> Model:
    """Load a model from `<path>.json` and `<path>.safetensors`, or from a hub repository.

    `path` is a local stem, or `owner/repo/stem/inside/it` on the Hugging Face hub (at `revision`). The
    network is built without allocating weights, then each tensor is read straight to `device`: memory holds
    the weights and at most one more tensor. `dtype` replaces the torso's dtype (float32 suits CPUs);
    `overrides` replace arguments of the config. Safe to call from several threads. Returns the model in
    evaluation mode.

    Raises CheckpointError for files that are missing or damaged, and for tensors that are missing, misshapen
    or (when `strict`) unknown.
    """
    config_path, weights_path = locate(path, revision)
    model = build(read_config(config_path), device="meta", **overrides)
    if dtype is not None:
        model.convert_to(as_dtype(dtype))
    load_weights(model, weights_path, device, strict=strict)
    return model.eval()


def locate(path: str | Path, revision: str | None = None) -> tuple[Path, Path]:
    """The config and the weights file of a checkpoint, from the hub (or its cache) if not local."""
    stem = str(path)
    local = Path(f"{stem}.json"), Path(f"{stem}.safetensors")
    present = [p.is_file() for p in local]
    if all(present):
        return local
    if any(present):
        there, absent = (local[0], local[1]) if present[0] else (local[1], local[0])
        raise CheckpointError(f"{there} exists but {absent} does not; a checkpoint needs both")
    parts = stem.replace("\\", "/").split("/")
    if len(parts) < 3 or Path(stem).is_absolute() or parts[0] in ("", ".", ".."):
        raise CheckpointError(
            f"no checkpoint at {stem}.json and {stem}.safetensors, and {stem!r} does not name a hub file "
            "(owner/repo/stem)"
        )
    repo, inside = "/".join(parts[:2]), "/".join(parts[2:])
    config, weights = (download(repo, inside + suffix, revision) for suffix in (".json", ".safetensors"))
    return config, weights


def download(repo: str, filename: str, revision: str | None = None) -> Path:
    """A file of a hub repository, from the local cache when it is there. Raises CheckpointError."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, filename, revision=revision))
    except Exception as error:  # the client's own errors, requests' and the file system's have no common base
        at = f" at revision {revision}" if revision else ""
        raise CheckpointError(
            f"{filename} of {repo}{at} cannot be had ({type(error).__name__}: {error}); check the name, the "
            "network, and whether the repository needs an accepted licence and a token"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """A model's `{"name", "args"}`. Raises CheckpointError when it is not that."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable JSON config ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise CheckpointError(f"{path}: a model config must be an object with 'name' and 'args'")
    return config


def build(config: dict[str, Any], *, device: str | torch.device = "cpu", **overrides: Any) -> Model:
    """The network of a config; on the `meta` device no memory is allocated and no weight initialised."""
    cls = model_class(config["name"])
    arguments = {**config.get("args", {}), **overrides}
    try:
        with torch.device(device):
            return cls(**arguments)
    except (TypeError, InvalidArgumentError) as error:
        raise CheckpointError(f"{config['name']} cannot be built from its config: {error}") from error


def load_weights(
    model: Model, path: Path, device: str | torch.device = "cpu", *, strict: bool = True
) -> None:
    """Fill a model (built on `meta` or anywhere) from a safetensors file; values take the dtype of their
    parameter.
    """
    started = time.perf_counter()
    device = torch.device(device)
    try:
        with open(path, "rb", buffering=0) as file:
            entries = read_header(file, path)
            _check(model, entries, path, strict)
            for name, parameter in list(model.named_parameters()):
                target = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                read_into(file, entries[name], target)
                _put(model, name, nn.Parameter(target, requires_grad=parameter.requires_grad))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    model.reset_buffers(device)
    log.info("weights loaded", extra={"path": str(path), "seconds": round(time.perf_counter() - started, 2)})


def _check(model: Model, entries: dict[str, Entry], path: Path, strict: bool) -> None:
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers()}
    faults = [f"missing {name} {list(shape)}" for name, shape in wanted.items() if name not in entries]
    faults += [
        f"misshapen {name}: file has {list(entries[name].shape)}, the model needs {list(shape)}"
        for name, shape in wanted.items()
        if name in entries and entries[name].shape != shape
    ]
    if strict:
        faults += [
            f"unexpected {name} {list(entry.shape)}"
            for name, entry in entries.items()
            if name not in wanted and name not in buffers
        ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__} ({len(wanted)} tensors, the file has "
            f"{len(entries)}): {shown}"
        )


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, parameter)


def save_pretrained(model: Model, path: str | Path, args: dict[str, Any]) -> None:
    """Write `<path>.json` and `<path>.safetensors` as published: `args` are the constructor's arguments.

    Tensors are stored in the dtypes of `Model.stored_dtypes`. Raises CheckpointError for a class that is not
    registered.
    """
    from safetensors.torch import save_file

    name = next((name for name, cls in MODELS.items() if cls is type(model)), None)
    if name is None:
        raise CheckpointError(
            f"{type(model).__name__} is not a registered model; known are {', '.join(MODELS)}"
        )
    stored = model.stored_dtypes()
    tensors = {
        key: parameter.detach().to("cpu", stored[key]).contiguous()
        for key, parameter in model.named_parameters()
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").write_text(
        json.dumps({"name": name, "args": args}, indent=4) + "\n", encoding="utf-8"
    )
    save_file(tensors, f"{path}.safetensors")
