"""Products of 8-bit floats, which recent cards multiply twice as fast: what `quality="fast"` takes for the
large products of a flow.

Rows of activations and output rows of weights have a scale each. The rounding is that of 3 bits of mantissa,
about 3.7 % of one product's norm. `fp8_triton` quantises on CUDA; here is the portable twin.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..backends import product_backend
from .layers import Linear
from .precision import FP8, LARGEST, SMALLEST_SCALE, QuantizedRows

MIN_WIDTH = 128  # channels in and out from which a product is quantised
TILE = 16  # of an 8-bit product: the fewest rows that it takes, and what its widths are multiples of
MIN_ROWS = 128  # fewer tokens do not fill a tile of the product
LARGE_PRODUCTS = ("to_qkv", "to_q", "to_out", "mlp.0", "mlp.2")
FAST_ACCUMULATION = True


def _fast(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and product_backend(device, dtype).backend == "fp8"


def quantize_rows(x: torch.Tensor, gelu: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `[T, C]` as 8-bit floats and the scales `[T, 1]` float32 that undo it; of their GELU (tanh
    approximation) if asked.
    """
    if _fast(x.device, x.dtype):
        kernels = importlib.import_module("trellis2.nn.fp8_triton")
        made: tuple[torch.Tensor, torch.Tensor] = kernels.quantize_rows(x, gelu)
        return made
    values = x.float()
    if gelu:
        values = F.gelu(values, approximate="tanh")
    scales = (values.abs().amax(dim=1, keepdim=True) / LARGEST).clamp_min(SMALLEST_SCALE)
    return (values / scales).clamp(-LARGEST, LARGEST).to(FP8), scales


def scaled_product(
    values: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`[T, N]` in `dtype` of quantised rows `[T, K]` and a quantised weight `[N, K]` with scales `[1, N]`."""
    if _fast(values.device, dtype):
        return torch._scaled_mm(
            values,
            weight.t(),
            scale_a=scales,
            scale_b=weight_scales,
            bias=bias,
            out_dtype=dtype,
            use_fast_accum=FAST_ACCUMULATION,
        )
    product = (values.float() @ weight.float().t()) * scales * weight_scales
    return (product if bias is None else product + bias.float()).to(dtype)


class Fp8Linear(nn.Module):
    """A linear layer with its weight as it is now, quantised; few rows go through the layer itself.

    Without `beside` the layer's own weight is moved to the CPU, and all rows are multiplied in 8 bits.
    """

    def __init__(self, plain: Linear, beside: bool = True) -> None:
        super().__init__()
        self.plain = plain if beside else None
        self.bias = plain.bias
        self.weight, scales = quantize_rows(plain.weight.detach())
        self.scales = scales.t().contiguous()
        if not beside:
            plain.weight.data = plain.weight.data.cpu()

    def forward(self, x: torch.Tensor | QuantizedRows, gelu: bool = False) -> torch.Tensor:
        """`x [T, K]`, of whose GELU the product is made if asked; returns `[T, N]`."""
        if isinstance(x, QuantizedRows):
            return scaled_product(x.values, x.scales, self.weight, self.scales, self.bias, x.dtype)
        if self.plain is not None and x.shape[0] < MIN_ROWS:
            out: torch.Tensor = self.plain(F.gelu(x, approximate="tanh") if gelu else x)
            return out
        missing = TILE - x.shape[0]
        if missing > 0:
            return self(F.pad(x, (0, 0, 0, missing)), gelu)[: x.shape[0]]
        return scaled_product(*quantize_rows(x, gelu), self.weight, self.scales, self.bias, x.dtype)


def takes_quantized(layer: nn.Module, rows: int) -> bool:
    """Whether a layer takes so many rows in 8 bits, which a norm before it can leave them in."""
    return isinstance(layer, Fp8Linear) and rows >= MIN_ROWS


def quantized_blocks(blocks: nn.ModuleList, beside: bool = True) -> nn.ModuleList:
    """The same blocks with their large products in 8 bits: all else in them is shared, not copied.

    Without `beside` the weights that are replaced are moved to the CPU, one after the other.
    """
    instead: dict[nn.Module, nn.Module] = {
        module: Fp8Linear(module, beside)
        for name, module in blocks.named_modules()
        if isinstance(module, Linear)
        and name.endswith(LARGE_PRODUCTS)
        and all(width >= MIN_WIDTH and width % TILE == 0 for width in module.weight.shape)
    }
    made: nn.ModuleList = _with(blocks, instead)
    return made


def _with(module: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> Any:
    """A module whose children are these, or such as hold them; the tensors are the original's."""
    other: Any = copy.copy(module)
    other._modules = {
        name: None if child is None else instead.get(child) or _with(child, instead)
        for name, child in module._modules.items()
    }
    return other
