"""The small networks of the bundled weights: layers that they share, and how they lie on the disk (shapes in
JSON, weights beside it).
"""

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


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A 3 x 3 convolution, group norm, GELU."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU()]


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*convolution(width, width), nn.Conv2d(width, width, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.layers(x)
        return out


def load_small(stem: Path, what: str, build: Callable[..., Network], config: Any) -> Network:
    """`build(config(...))` with the weights stored at `<stem>.json` and `<stem>.safetensors`.

    `what` names the network in the `CheckpointError` raised where the files are of no use.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_path, weights_path = (stem.with_name(f"{stem.name}{end}") for end in (".json", ".safetensors"))
    try:
        args = json.loads(config_path.read_text(encoding="utf-8"))["args"]
        network = build(config(**{k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}))
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
