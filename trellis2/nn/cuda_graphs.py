"""Replaying a function as CUDA graphs while nothing but its inputs' values changes.

A sampling run calls one network a dozen times or more with the same shapes. Recording the kernels once and
replaying them takes the launches, which small token counts are bound by, off the processor. A call is
recorded segment by segment and each segment is replayed at once, so that the device works on one while the
processor records the next. A recording holds the addresses of everything that the call reads besides its
inputs: whoever owns a `Recordings` must drop it when those move.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from .precision import autocasting

log = logging.getLogger(__name__)

VARIABLE = "TRELLIS2_CUDA_GRAPHS"
# Longer lists keep the device busy for longer than their launches take, and a recording keeps their memory.
MAX_TOKENS = 8192
MAX_RECORDINGS = 2

_recording = threading.Lock()  # recordings of a device share a stream


@dataclass(frozen=True)
class SegmentedCall:
    """A chain of functions: the first takes the inputs, each later one what the one before returned."""

    segments: tuple[Callable[..., Any], ...]

    def __call__(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        first, *others = self.segments
        state = first(*inputs)
        for segment in others:
            state = segment(state)
        result: torch.Tensor = state
        return result


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _allocate_workspaces(device: torch.device) -> None:
    """Let cuBLAS take the workspaces that it keeps for a stream: those of a recording would outlive it."""
    x = torch.ones(16, 16, device=device, dtype=torch.bfloat16)
    torch.addmm(x[0], x, x)
    torch.mm(x, x)


class RecordedCall:
    """One recorded call: inputs are copied in, the kernels replayed, the output copied out."""

    def __init__(self, call: SegmentedCall, inputs: Sequence[torch.Tensor | None], keep: Any = None) -> None:
        """Record and run `call(*inputs)`, whose kernels must have run before on these shapes. `keep`: what it
        reads besides, kept alive.
        """
        self._inputs = [None if x is None else x.clone() for x in inputs]
        self._keep = keep
        self._graphs: list[torch.cuda.CUDAGraph] = []
        device = next(x.device for x in inputs if x is not None)
        here, aside = torch.cuda.current_stream(device), _stream(device)
        pool = torch.cuda.graph_pool_handle()
        # Not torch.cuda.graph(), which empties the allocator's cache and collects garbage first.
        with _recording, torch.cuda.stream(aside):
            aside.wait_stream(here)
            _allocate_workspaces(device)
            here.wait_stream(aside)
            state: Any = None
            for i, segment in enumerate(call.segments):
                graph = torch.cuda.CUDAGraph()
                # What a segment leaves to the next keeps its place in the pool while `state` holds it.
                graph.capture_begin(pool, capture_error_mode="thread_local")
                try:
                    state = segment(state) if i else segment(*self._inputs)
                finally:
                    graph.capture_end()
                with torch.cuda.stream(here):
                    graph.replay()
                self._graphs.append(graph)
        self._output: torch.Tensor = state

    def result(self) -> torch.Tensor:
        """What the last replay gave."""
        return self._output.clone()

    def __call__(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        for graph in self._graphs:
            graph.replay()
        return self.result()


class Recordings:
    """Recordings of calls that read the same weights and contexts, each made at the first call of its key.

    At most `MAX_RECORDINGS` are held. After a recording that fails, which is logged, calls run directly.
    """

    def __init__(self) -> None:
        self._recorded: dict[Any, RecordedCall] = {}
        self.failed = False

    def __len__(self) -> int:
        return len(self._recorded)

    def serve(self, tokens: torch.Tensor) -> bool:
        """Whether calls on these tokens may be recorded: CUDA, no gradients, not too many of them.

        The environment variable `TRELLIS2_CUDA_GRAPHS=0` turns recording off.
        """
        return (
            tokens.is_cuda
            and not self.failed
            and tokens.shape[0] <= MAX_TOKENS
            and not torch.is_grad_enabled()
            and not autocasting(tokens)
            and os.environ.get(VARIABLE, "1") not in ("0", "off", "false")
        )

    def run(
        self,
        call: SegmentedCall,
        inputs: Sequence[torch.Tensor | None],
        key: Any = None,
        keep: Any = None,
        warm_up: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The result of `call(*inputs)`: recorded where the shapes or `key` are new, else replayed.

        `warm_up(*inputs)` runs before a recording: it must launch whatever kernels the call does, on the same
        shapes, which is `call` itself unless a shorter one is given.
        """
        key = key, tuple(None if x is None else (x.shape, x.dtype) for x in inputs)
        known = self._recorded.get(key)
        if known is not None:
            return known(*inputs)
        (warm_up or call)(*inputs)
        while len(self._recorded) >= MAX_RECORDINGS:
            del self._recorded[next(iter(self._recorded))]
        try:
            recorded = RecordedCall(call, inputs, keep)
        except RuntimeError as error:
            log.warning("a forward pass cannot be recorded as a CUDA graph", extra={"fault": repr(error)})
            self.failed = True
            self._recorded.clear()
            return call(*inputs)
        self._recorded[key] = recorded
        return recorded.result()
