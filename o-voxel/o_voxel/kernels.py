"""Warp, set up once on first use: quiet, kernels cached on disk, CPU launches spread over threads.

Modules that define kernels (`*_kernels.py`) import warp at their top and are themselves imported inside the
functions that launch them, so that importing the package costs nothing and touches no driver.

A kernel to be launched through `launch` takes `start: int` first and works on item `start + wp.tid()`.
Tensors are handed to `launch` as they are.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

log = logging.getLogger(__name__)

SMALLEST_CHUNK = 2048
"""Items below which a CPU launch is not worth splitting."""

CHUNKS_PER_THREAD = 4
"""More pieces than threads: the cost of an item varies with where it lies."""

_initialising = threading.Lock()
_loading = threading.Lock()


@lru_cache(maxsize=1)
def _initialised() -> ModuleType:
    import warp

    if hasattr(warp.config, "log_level"):
        warp.config.log_level = warp.LOG_ERROR
    else:  # before 1.14
        setattr(warp.config, "quiet", True)  # noqa: B010
    with _silent_stderr():
        try:
            warp.init()
            usable = os.access(warp.config.kernel_cache_dir or "", os.W_OK)
        except OSError:
            usable = False
        if not usable:
            _use_private_cache(warp)
    return warp


def _use_private_cache(warp: ModuleType) -> None:
    """Compile into a folder of this process alone, where the user's cache cannot be written."""
    folder = tempfile.mkdtemp(prefix="o-voxel-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning(
        "the cache of compiled kernels cannot be written; this process compiles into %s. "
        "Set WARP_CACHE_PATH to a folder that can be written",
        folder,
    )
    warp.config.kernel_cache_dir = folder
    warp.init()


def warp_module() -> ModuleType:
    """The initialised `warp` module; safe to call from any thread, and cheap after the first call."""
    with _initialising:
        return _initialised()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Warp's native code writes a warning straight to file descriptor 2 where there is no NVIDIA driver."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all: nothing to keep quiet
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def cpu_threads() -> int:
    """Threads that a CPU launch is spread over: torch's own setting, so that one number governs both."""
    return max(1, torch.get_num_threads())


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="o_voxel-warp")


def on_cpu_threads(run: Callable[[int], None], pieces: int) -> None:
    """Call `run(0)` to `run(pieces - 1)` on `cpu_threads()` threads; a Warp CPU launch releases the GIL."""
    list(_pool(os.getpid(), cpu_threads()).map(run, range(pieces)))


def as_warp(tensor: torch.Tensor, dtype: Any = None) -> Any:
    """The same memory as a Warp array (no copy). `dtype` may be a vector type, e.g. `wp.vec3` for [N, 3]."""
    wp = warp_module()
    return wp.from_torch(tensor.detach().contiguous(), dtype=dtype, requires_grad=False)


@contextlib.contextmanager
def current_stream(device: torch.device | str) -> Iterator[None]:
    """Warp works on torch's current CUDA stream inside, so that the two see each other's results in order."""
    device = torch.device(device)
    if device.type == "cpu":
        yield
        return
    wp = warp_module()
    with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device))):
        yield


def launch(kernel: Any, count: int, inputs: Sequence[Any], device: torch.device | str) -> None:
    """Run `kernel(start, *inputs)` over `count` items on `device`; tensors become the arrays it declares.

    On CUDA: one launch on torch's current stream. On the CPU, where Warp itself uses a single thread, the
    range is cut into pieces that run on `cpu_threads()` threads, so **no two items may write to the same
    place**: Warp's atomics are plain operations on a CPU.
    """
    pieces = min(cpu_threads() * CHUNKS_PER_THREAD, count // SMALLEST_CHUNK)
    if torch.device(device).type != "cpu" or cpu_threads() == 1 or pieces < 2:
        launch_serially(kernel, count, inputs, device)
        return
    wp, target = warp_module(), load(kernel, device)
    inputs = _as_declared(kernel, inputs)
    bounds = [count * i // pieces for i in range(pieces + 1)]

    def run(piece: int) -> None:
        start, stop = bounds[piece], bounds[piece + 1]
        wp.launch(kernel, dim=stop - start, inputs=[start, *inputs], device=target)

    on_cpu_threads(run, pieces)


def launch_serially(
    kernel: Any, count: int, inputs: Sequence[Any], device: torch.device | str, start: int = 0
) -> None:
    """One launch over the items from `start` on: on a CPU one thread, so that items may write to the same
    place through atomics.
    """
    if count == 0:
        return
    target = load(kernel, device)
    with current_stream(device):
        warp_module().launch(kernel, dim=count, inputs=[start, *_as_declared(kernel, inputs)], device=target)


def repeatable(
    kernel: Any, count: int, inputs: Sequence[Any], device: torch.device | str
) -> Callable[[], None]:
    """`launch` with these inputs, again and again: on CUDA a call then takes microseconds, not a tenth of a
    millisecond. Tensors must be contiguous; each call works on what they hold by then."""
    target = load(kernel, device)
    if torch.device(device).type == "cpu" or count == 0:
        return lambda: launch(kernel, count, inputs, device)
    wp, declared = warp_module(), _as_declared(kernel, inputs)
    with current_stream(device):
        command = wp.launch(kernel, dim=count, inputs=[0, *declared], device=target, record_cmd=True)
    stream = wp.stream_from_torch(torch.cuda.current_stream(device))

    def run() -> None:
        assert declared  # the arrays stay alive as long as the command does
        command.launch(stream)

    return run


def _as_declared(kernel: Any, inputs: Sequence[Any]) -> list[Any]:
    """The inputs, each tensor as an array of what the kernel declares there, such as vectors for [N, 3]."""
    types = [argument.type for argument in kernel.adj.args[1:]]
    return [
        as_warp(value, declared.dtype) if isinstance(value, torch.Tensor) else value
        for value, declared in zip(inputs, types, strict=True)
    ]


def load(kernel: Any, device: torch.device | str) -> Any:
    """Compile a kernel's module for a device if need be, by one thread; returns Warp's device."""
    wp = warp_module()
    target = wp.device_from_torch(torch.device(device))
    with _loading:
        wp.load_module(kernel.module, device=target)
    return target
