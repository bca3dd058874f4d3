"""Which dtype a layer stores, and which it computes in."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from ..errors import InvalidArgumentError

_NAMES = {
    "f16": torch.float16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "f32": torch.float32,
    "fp32": torch.float32,
    "float32": torch.float32,
}


FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of its finite values
SMALLEST_SCALE = 1e-12


class QuantizedRows(NamedTuple):
    """Rows as 8-bit floats: `values [T, C]`, the `scales [T, 1]` that undo it, and what they were before."""

    values: torch.Tensor
    scales: torch.Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        return self.values.shape


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """The dtype that a config means (`"bf16"`, `"float16"`, ...). Raises InvalidArgumentError for others."""
    if isinstance(name, torch.dtype):
        return name
    if name not in _NAMES:
        raise InvalidArgumentError(f"dtype {name!r} is not one of {', '.join(sorted(_NAMES))}")
    return _NAMES[name]


@lru_cache(maxsize=1)
def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype to multiply in: CPUs without the instructions take 16-bit operands widened to float32.

    The result is rounded to the storage dtype once, as a 16-bit GEMM with float32 accumulation does.
    """
    if device.type != "cpu" or dtype not in (torch.float16, torch.bfloat16):
        return dtype
    if dtype == torch.bfloat16 and _cpu_multiplies_bf16():
        return dtype
    return torch.float32


def autocasting(tensor: torch.Tensor) -> bool:
    """Whether autocast is on for the tensor's kind of device."""
    device = tensor.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def convert_torso(torso: nn.Module, dtype: torch.dtype) -> None:
    """Give a torso's matrix and convolution layers a dtype; norms, gammas, modulations stay float32."""
    for module in torso.modules():
        if getattr(module, "follows_torso_dtype", False):
            module.to(dtype)
