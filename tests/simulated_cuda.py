"""A CUDA device that is not there: tensors that say they are on one, computed on the CPU.

Inside `SimulatedCuda` every torch call is watched. Tensors made with a CUDA device keep their data on the CPU
but answer `device` with cuda:0, so that the code under test takes the ways that it takes on a GPU. What a GPU
would refuse is refused: operands on two devices, `numpy()` without `cpu()`, a kernel over memory of the
other device or beside torch's stream. What a GPU would do slowly is counted: bytes brought to the CPU, and
waits for a result. It shows neither speed nor what the real kernels round to; for these,
`tests/o_voxel/postprocess/test_cuda.py` needs a GPU.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from o_voxel import kernels
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode, resolve_name

CUDA = torch.device("cuda", 0)
TARGET = "simulated cuda"
"""What stands for the Warp device."""

TO_NUMPY = {"numpy", "__array__"}
WAITS = {
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "equal",
    "nonzero",
    "unique",
    "bincount",
}
NEW_HOME = {"to", "cpu", "cuda"}
ACROSS = {"copy_"}


class OnGpu(torch.Tensor):
    """Data on the CPU that passes for CUDA memory."""


class DeviceError(RuntimeError):
    """Something that a real GPU would refuse."""


class SimulatedCuda(TorchFunctionMode):
    """Watches torch calls: `copied` counts the bytes that each function brought to the CPU, `waits` the calls
    that wait for the GPU. With `networks`, parameters of networks pass for CUDA memory, too."""

    def __init__(self, networks: bool = False) -> None:
        super().__init__()
        self.networks = networks
        self.copied: Counter[str] = Counter()
        self.waits = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = _name(func)
        tensors = list(_tensors((args, kwargs)))
        there = [t for t in tensors if self._is_there(t)]
        if func == torch.Tensor.device.__get__ and there:
            return CUDA
        if func == torch.Tensor.is_cuda.__get__ and there:
            return True
        if name == "as_subclass":
            return _plainly(func, args, kwargs)
        if name in NEW_HOME and isinstance(args[0], torch.Tensor):
            return self._moved(func, name, args, kwargs)
        if name in TO_NUMPY and there:
            raise DeviceError(f"{name} of a tensor on the GPU: call cpu() first")
        target = kwargs.get("device")
        on_gpu = bool(there) if target is None else torch.device(target).type == "cuda"
        if on_gpu and target is not None:
            kwargs["device"] = "cpu"
        strays = [t for t in tensors if not self._is_there(t) and t.ndim > 0]
        if there and strays and name not in ACROSS:
            raise DeviceError(f"{name}: {len(there)} tensors on the GPU and {len(strays)} on the CPU")
        if there:
            self.waits += name in WAITS or (name == "__getitem__" and _has_mask(args[1]))
        result = _plainly(func, args, kwargs)
        return _as_gpu(result) if on_gpu and not isinstance(result, Parameter) else result

    def _is_there(self, tensor: torch.Tensor) -> bool:
        return isinstance(tensor, OnGpu) or (self.networks and isinstance(tensor, Parameter))

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> torch.Tensor:
        """`to`, `cpu` and `cuda`: the data stay where they are, what they pass for changes."""
        source = args[0]
        to_gpu = self._is_there(source) if name == "to" else name == "cuda"
        rest = []
        for value in (*args[1:], *kwargs.values()):
            if isinstance(value, torch.Tensor):
                to_gpu = isinstance(value, OnGpu)
                rest.append(value.dtype)
            elif isinstance(value, (torch.device, str)):
                to_gpu = torch.device(value).type == "cuda"
            elif isinstance(value, torch.dtype):
                rest.append(value)
        moved = _plainly(torch.Tensor.to, (source, *rest), {}) if rest else source
        if self._is_there(source) and not to_gpu:
            self.copied[_caller()] += moved.numel() * moved.element_size()
            self.waits += 1
        return _as_gpu(moved) if to_gpu else moved.as_subclass(torch.Tensor)


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", resolve_name(func)))


def _plainly(func: Any, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _as_gpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value if isinstance(value, OnGpu) else value.as_subclass(OnGpu)
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        parts = [_as_gpu(v) for v in value]
        return type(value)(parts)  # torch's named tuples take one list, too
    return value


def _has_mask(index: Any) -> bool:
    return any(t.dtype == torch.bool for t in _tensors(index))


def _caller() -> str:
    """The file of this project that asked for a copy."""
    frame = sys._getframe(2)  # `inspect.stack` reads sources, and searches all modules for each
    while frame is not None:
        code = frame.f_code
        if "o_voxel/" in code.co_filename or "trellis2/" in code.co_filename:
            return code.co_filename.rsplit("/", 1)[1].removesuffix(".py") + "." + code.co_name
        frame = frame.f_back
    return "?"


@contextlib.contextmanager
def simulated_cuda(networks: bool = False) -> Iterator[SimulatedCuda]:
    """Torch and Warp as they behave with tensors on CUDA; with `networks`, with networks there, too."""
    wp: Any = kernels.warp_module()
    names = ("from_torch", "launch", "load_module", "device_from_torch", "Mesh", "Bvh")
    genuine = {name: getattr(wp, name) for name in names}

    def from_torch(tensor: torch.Tensor, **options: Any) -> Any:
        array = genuine["from_torch"](tensor.as_subclass(torch.Tensor), **options)
        array.passes_for_gpu = isinstance(tensor, OnGpu)
        return array

    streams: list[Any] = []

    @contextlib.contextmanager
    def on_stream(stream: Any) -> Iterator[None]:
        streams.append(stream)
        yield
        streams.pop()

    def check(what: str, values: Any, on_gpu: bool) -> None:
        if any(array.passes_for_gpu != on_gpu for value in values for array in _arrays(value, wp)):
            raise DeviceError(f"{what} got an array of the other device")
        if on_gpu and not streams:
            raise DeviceError(f"{what} does not run on torch's stream")

    def launch(kernel: Any, dim: int, inputs: Any, device: Any, record_cmd: bool = False) -> Any:
        check(kernel.key, inputs, device == TARGET)
        command = genuine["launch"](kernel, dim=dim, inputs=inputs, device="cpu", record_cmd=record_cmd)
        return SimpleNamespace(launch=lambda stream: command.launch()) if record_cmd else None

    def built(kind: str) -> Any:
        def build(*arrays: Any, **options: Any) -> Any:
            given = [a for a in (*arrays, *options.values()) if isinstance(a, wp.array)]
            check(kind, given, given[0].passes_for_gpu)
            return genuine[kind](*arrays, **options)

        return build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wp, "from_torch", from_torch)
        patch.setattr(wp, "launch", launch)
        patch.setattr(wp, "Mesh", built("Mesh"))
        patch.setattr(wp, "Bvh", built("Bvh"))
        patch.setattr(wp, "load_module", lambda module, device: genuine["load_module"](module, device="cpu"))
        patch.setattr(
            wp,
            "device_from_torch",
            lambda device: (
                TARGET if torch.device(device).type == "cuda" else genuine["device_from_torch"](device)
            ),
        )
        patch.setattr(wp, "stream_from_torch", lambda stream: stream)
        patch.setattr(wp, "ScopedStream", on_stream)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: None)
        patch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        if networks:
            patch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)
        with SimulatedCuda(networks) as watch:
            yield watch


def _arrays(value: Any, wp: Any) -> Iterator[Any]:
    if isinstance(value, wp.array):
        yield value
    elif hasattr(value, "_cls"):  # a struct
        for name in value._cls.vars:
            yield from _arrays(getattr(value, name), wp)


def on_gpu(value: Any) -> Any:
    """Tensors of a dict, list or tensor as if on the GPU."""
    if isinstance(value, dict):
        return {name: on_gpu(part) for name, part in value.items()}
    return value.as_subclass(OnGpu) if isinstance(value, torch.Tensor) else value
