"""Which implementation of attention, the sparse convolution, the element-wise work and the products of
`quality="fast"` a call uses, and why.

Chosen per call from the device, the dtype and what was measured to be faster there; `ATTN_BACKEND`,
`SPARSE_CONV_BACKEND`, `ELEMENTWISE_BACKEND` and `PRODUCT_BACKEND` force one. A forced backend that cannot run
is a BackendError that names the package; an automatic choice never fails.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from functools import cache, partial

import torch
from o_voxel.backends import Choice, described, load_problem

from .errors import BackendError

log = logging.getLogger(__name__)

ATTENTION = ("cudnn", "cudnn_padded", "flash_attn", "triton", "triton_balanced", "sdpa")
SPARSE_CONV = ("flex_gemm", "triton", "torch")
ONLY_FORCED = {
    "fp8_emulated": "fp8_emulated multiplies in float32 and is for judging quality",
    "flex_gemm": "flex_gemm is slower where it was measured (H200: 61 s of autotuning at a first decode)",
}
ELEMENTWISE = ("triton", "torch")
PRODUCTS = ("fp8", "fp8_emulated", "torch")  # of `quality="fast"`; exact runs always take torch's
FP8_CAPABILITY = (8, 9)
_PACKAGE = {
    "cudnn": "cuDNN",
    "cudnn_padded": "cuDNN",
    "flash_attn": "flash-attn",
    "flex_gemm": "flex_gemm",
    "triton": "triton",
    "triton_balanced": "triton",
    "fp8": "triton",
}
_MODULES = {
    "flash_attn": ("flash_attn",),
    "flex_gemm": ("flex_gemm",),
    "triton": (
        "triton",
        "trellis2.sparse.conv_triton",
        "trellis2.nn.elementwise_triton",
        "trellis2.nn.attention_triton",
    ),
    "triton_balanced": ("triton", "trellis2.nn.attention_balanced_triton"),
    "fp8": ("triton", "trellis2.nn.fp8_triton"),
}

LONG_TOKENS = 8192  # from here on a faster kernel saves more in one run than its plan costs (Hopper)


@dataclass(frozen=True)
class AttentionOrder:
    """Which attention to try, first to last, by whether a length comes again in every run, and by length."""

    recurring: tuple[str, ...]
    short: tuple[str, ...]
    long: tuple[str, ...]


_FLASH = ("flash_attn", "sdpa")
_EVEN = ("triton_balanced", *_FLASH)
# By compute capability: the newest entry that a device reaches. cuDNN plans every new length (0.07 to 0.9 s
# on Hopper): lengths that are new in every run take a kernel without plans until cuDNN's speed pays for one.
ATTENTION_ORDERS: dict[tuple[int, int], AttentionOrder] = {
    (0, 0): AttentionOrder(_FLASH, _FLASH, _FLASH),  # Ampere, Ada: cuDNN's attention is no gain there
    (9, 0): AttentionOrder(("cudnn", *_FLASH), _EVEN, ("cudnn", *_FLASH)),  # Hopper
    (10, 0): AttentionOrder(("cudnn", *_FLASH), _FLASH, ("cudnn", *_FLASH)),  # B200: not measured
    (12, 0): AttentionOrder(_FLASH, _FLASH, _FLASH),  # RTX 50: not measured
}


def _import_fault(backend: str) -> str | None:
    """Why a backend's modules cannot be imported, None when they can. Imports them: call it for CUDA work
    only.
    """
    problems = (load_problem(name, f"package {_PACKAGE[backend]}") for name in _MODULES.get(backend, ()))
    return next(filter(None, problems), None)


def _fault(backend: str, device: torch.device, dtype: torch.dtype, needs_grad: bool) -> str | None:
    """Why a backend cannot serve this call, None when it can."""
    if backend in ("sdpa", "torch", "fp8_emulated"):
        return None
    if device.type != "cuda":
        return f"{_PACKAGE[backend]} needs CUDA tensors, these are on {device.type}"
    if backend == "flash_attn" and dtype not in (torch.float16, torch.bfloat16):
        return f"flash-attn takes float16 and bfloat16 only, not {dtype}"
    if backend in ("cudnn", "cudnn_padded"):
        return _cudnn_fault(dtype, needs_grad)
    if backend in ("triton", "triton_balanced"):
        return _import_fault(backend) or _triton_fault(device)
    if backend == "fp8":
        return _fp8_fault(device, dtype)
    return _import_fault(backend)


def _fault_of(
    operation: str, backend: str, device: torch.device, dtype: torch.dtype, needs_grad: bool
) -> str | None:
    """The same for one operation: Triton's attention takes 16 bits and has no backward pass."""
    packed = operation == "attention" and backend in ("triton", "triton_balanced")
    if packed and needs_grad:
        return "Triton's attention computes no gradients"
    if packed and dtype not in (torch.float16, torch.bfloat16):
        return f"Triton's attention takes float16 and bfloat16 only, not {dtype}"
    return _fault(backend, device, dtype, needs_grad)


@cache
def _triton_fault(device: torch.device) -> str | None:
    """Why Triton's kernels do not run on a device, None when one did: it needs a C compiler at run time."""
    try:
        kernels = importlib.import_module("trellis2.nn.elementwise_triton")
        _, normed = kernels.residual_norm(torch.tensor([[1.0, -1.0] * 8], device=device))
        wrong = not bool(torch.isfinite(normed).all())
    except Exception as error:  # compilers and drivers fail in any way
        log.warning("backend unusable", extra={"backend": "triton", "fault": repr(error)})
        return f"package triton cannot run a kernel on {device}: {error!r}"
    return f"package triton computes wrongly on {device}" if wrong else None


@cache
def _fp8_fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why products of 8-bit floats do not serve, None when one was right."""
    if dtype != torch.bfloat16:
        return f"8-bit products come out as bfloat16 only, not {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability < FP8_CAPABILITY:
        return f"8-bit products need compute capability 8.9, this device has {capability[0]}.{capability[1]}"
    fault = _import_fault("fp8")
    if fault is not None:
        return fault
    try:
        kernels = importlib.import_module("trellis2.nn.fp8_triton")
        x = torch.linspace(-2.0, 2.0, 64 * 64, device=device).view(64, 64).to(dtype)
        values, scales = kernels.quantize_rows(x)
        out = torch._scaled_mm(values, values.t(), scales, scales.t().contiguous(), out_dtype=dtype)
        expected = x.float() @ x.float().t()
        apart = float((out.float() - expected).norm() / expected.norm())
    except Exception as error:  # compilers, drivers and torch refuse in any way
        log.warning("backend unusable", extra={"backend": "fp8", "fault": repr(error)})
        return f"{device} refused an 8-bit product: {error!r}"
    return None if apart < 0.1 else f"8-bit products are wrong on {device}: {apart:.2g} from bfloat16's"


@cache
def _cudnn_fault(dtype: torch.dtype, needs_grad: bool) -> str | None:
    """Why torch's cuDNN attention should not serve."""
    if dtype not in (torch.float16, torch.bfloat16):
        return f"cuDNN's attention takes float16 and bfloat16 only, not {dtype}"
    if needs_grad:
        return "cuDNN's attention plans every new length, which training has many of"
    return None if torch.backends.cudnn.is_available() else "package cuDNN is not part of this torch"


def _choose(
    operation: str,
    variable: str,
    order: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype,
    grad: bool,
) -> Choice:
    forced = os.environ.get(variable)
    if forced and forced != "auto":
        if forced not in order:
            raise BackendError(f"{variable}={forced} is unknown; choose one of {', '.join(order)}, auto")
        fault = _fault_of(operation, forced, device, dtype, grad)
        if fault:
            raise BackendError(f"{variable}={forced} was forced, but {fault}; install it or unset {variable}")
        return Choice(operation, forced, f"forced by {variable}")
    passed: list[str] = []
    for backend in order:
        fault = ONLY_FORCED.get(backend) or _fault_of(operation, backend, device, dtype, grad)
        if fault is None:
            return Choice(operation, backend, "; ".join(passed) or "first choice")
        passed.append(fault)
    raise AssertionError("the portable backend serves every call")


def attention_backend(
    device: torch.device,
    dtype: torch.dtype,
    needs_grad: bool = False,
    tokens: int = 0,
    recurring: bool = False,
) -> Choice:
    """The attention implementation for tensors of this device and dtype.

    `tokens`: of the longest sequence of queries; `recurring`: every run has this length again.
    """
    forced = os.environ.get("ATTN_BACKEND", "auto") not in ("", "auto")
    if forced or device.type != "cuda":
        return _choose("attention", "ATTN_BACKEND", ATTENTION, device, dtype, needs_grad)
    capability = torch.cuda.get_device_capability(device)
    order = ATTENTION_ORDERS[max(known for known in ATTENTION_ORDERS if known <= capability)]
    kind = "recurring" if recurring else "long" if tokens > LONG_TOKENS else "short"
    chosen = _choose("attention", "ATTN_BACKEND", getattr(order, kind), device, dtype, needs_grad)
    reason = f"{kind} lists on compute capability {capability[0]}.{capability[1]}"
    passed = "" if chosen.reason == "first choice" else f"; {chosen.reason}"
    return Choice(chosen.operation, chosen.backend, f"{reason}{passed}")


def sparse_conv_backend(
    device: torch.device,
    dtype: torch.dtype,
    needs_grad: bool = False,
    channels: tuple[int, int] | None = None,
) -> Choice:
    """The submanifold convolution's implementation for tensors of this device and dtype; `channels` in and
    out, where known, may change Triton for torch.
    """
    choice = _choose("sparse convolution", "SPARSE_CONV_BACKEND", SPARSE_CONV, device, dtype, needs_grad)
    automatic = os.environ.get("SPARSE_CONV_BACKEND", "auto") in ("", "auto")
    if choice.backend != "triton" or not automatic or needs_grad or channels is None:
        return choice
    if dtype == torch.float32 or torch.cuda.get_device_capability(device)[0] != 9:
        return choice
    if not gathering_pays(*channels):
        return choice
    reason = f"{channels[0]} to {channels[1]} channels: one large product outweighs gathering for it"
    return Choice(choice.operation, "torch", reason)


def gathering_pays(in_channels: int, out_channels: int) -> bool:
    """Whether gathering all 27 neighbours and a dense product beat the implicit product; Hopper, 16 bit.

    Measured on an H100: a gathered row costs 0.67 ns however wide it is; the dense product runs at 810
    TFLOP/s over 27 taps, the implicit one at 330 to 390 over the 15 to 23 taps that a tile needs. The gather
    costs the same for any number of output channels and the products' difference grows with in x out; both
    are per voxel, so their number cancels. 512 x 512 and 256 x 1024 (2^18) are faster without gathering,
    1024 x 1024 and 512 x 2048 (2^20) with it.
    """
    return in_channels * out_channels > 2**19


def elementwise_backend(device: torch.device, dtype: torch.dtype) -> Choice:
    """Who computes norms, residuals and rotations of tensors of this device and dtype."""
    return _choose("element-wise", "ELEMENTWISE_BACKEND", ELEMENTWISE, device, dtype, False)


def product_backend(device: torch.device, dtype: torch.dtype) -> Choice:
    """Who multiplies the large products of `quality="fast"` for tensors of this device and dtype; those of 8
    bits compute no gradients.
    """
    return _choose("fast products", "PRODUCT_BACKEND", PRODUCTS, device, dtype, False)


def describe(device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16) -> list[Choice]:
    """What 16-bit inference on a device uses and why; `unavailable` where a forced choice cannot be met."""
    device = torch.device(device)
    picks = {
        "attention": partial(attention_backend, device, dtype),
        "sparse convolution": partial(sparse_conv_backend, device, dtype),
        "element-wise": partial(elementwise_backend, device, dtype),
        "fast products": partial(product_backend, device, dtype),
    }
    return described(picks, (BackendError,))
