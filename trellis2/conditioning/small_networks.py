"""The small networks of the bundled weights on the disk: their shapes in JSON, their weights beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import CheckpointError

Network = TypeVar("Network", bound=nn.Module)


def load_small(stem: Path, what: str, build: Callable[..., Network], config: Any, widths: str) -> Network:
    """`build(config(...))` with the weights stored at `<stem>.json` and `<stem>.safetensors`.

    `widths` is the argument that is a tuple, `what` names the network in the `CheckpointError` raised where
    the files are of no use.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_path, weights_path = (stem.with_name(f"{stem.name}{end}") for end in (".json", ".safetensors"))
    try:
        args = json.loads(config_path.read_text(encoding="utf-8"))["args"]
        network = build(config(**{**args, widths: tuple(args[widths])}))
        network.load_state_dict(load_file(weights_path))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"no usable {what} at {config_path}, {weights_path}: {error}") from error
    return network


def save_small(network: nn.Module, stem: Path, name: str, config: Any, dtype: torch.dtype) -> None:
    """Write `<stem>.json` (`config`, under `name`) and `<stem>.safetensors` with the weights in `dtype`."""
    from safetensors.torch import save_file

    stem.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": name, "args": asdict(config)}, indent=4) + "\n"
    stem.with_name(f"{stem.name}.json").write_text(text, encoding="utf-8")
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, stem.with_name(f"{stem.name}.safetensors"))
