"""Replaying a network's forward pass as CUDA graphs while nothing but its inputs' values changes.

A sampling run calls one network a dozen times or more with the same shapes. Recording the kernels once and
replaying them takes the launches, which small token counts are bound by, off the processor. A pass is
recorded in pieces, each replayed at once, so that the device works on one while the processor records the
next. A recording holds the addresses of weights, context and tables; it therefore belongs to a context, is
looked up by those addresses, and dies with the context: after one run, unless a network keeps some
(`models/context.py`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from functools import cache
from typing import Any

import torch

from .precision import autocasting

log = logging.getLogger(__name__)

Pieces = Generator[None, None, torch.Tensor]  # a call that stops between its pieces, and returns its result

VARIABLE = "TRELLIS2_CUDA_GRAPHS"
# Longer lists keep the device busy for longer than their launches take, and a recording keeps their memory.
MOST_TOKENS = 8192
MOST_GRAPHS = 2

_recording = threading.Lock()  # recordings of a device share a stream


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _take_workspaces(device: torch.device) -> None:
    """Let cuBLAS take the workspaces that it keeps for a stream: those of a recording would outlive it."""
    x = torch.ones(16, 16, device=device, dtype=torch.bfloat16)
    torch.addmm(x[0], x, x)
    torch.mm(x, x)


def in_one_go(pieces: Pieces) -> torch.Tensor:
    """The result of a call in pieces."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: torch.Tensor = end.value
            return result


class StepGraph:
    """One recorded call: inputs are copied in, the kernels replayed, the output copied out."""

    def __init__(
        self, call: Callable[..., Pieces], inputs: Sequence[torch.Tensor], keep: Sequence[torch.Tensor]
    ) -> None:
        """Record and run `call(*inputs)`, whose kernels must have run before on these shapes. `keep`: what it
        reads besides, kept alive.
        """
        self._inputs = [x.clone() for x in inputs]
        self._keep = list(keep)
        self._graphs: list[torch.cuda.CUDAGraph] = []
        device = inputs[0].device
        here, aside = torch.cuda.current_stream(device), _stream(device)
        pool = torch.cuda.graph_pool_handle()
        pieces = call(*self._inputs)
        # Not torch.cuda.graph(), which empties the allocator's cache and collects garbage first.
        with _recording, torch.cuda.stream(aside):
            aside.wait_stream(here)
            _take_workspaces(device)
            here.wait_stream(aside)
            output = None
            while output is None:
                graph = torch.cuda.CUDAGraph()
                # What a piece leaves to the next keeps its place in the pool: the suspended call holds it.
                graph.capture_begin(pool, capture_error_mode="thread_local")
                try:
                    next(pieces)
                except StopIteration as end:
                    output = end.value
                finally:
                    graph.capture_end()
                with torch.cuda.stream(here):
                    graph.replay()
                self._graphs.append(graph)
        self._output: torch.Tensor = output

    def result(self) -> torch.Tensor:
        """What the last replay gave."""
        return self._output.clone()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        for graph in self._graphs:
            graph.replay()
        return self.result()


class StepGraphs:
    """The recordings of one sampling run's context, made at the first call with a key.

    At most `MOST_GRAPHS` are kept. A recording that fails is logged, and this run goes on without.
    """

    def __init__(self) -> None:
        self._seen: dict[Any, StepGraph] = {}
        self.failed = False  # whether a recording went wrong, after which there are no more

    def serve(self, tokens: torch.Tensor) -> bool:
        """Whether calls on these tokens may be recorded: CUDA, no gradients, not too many of them.

        The environment variable `TRELLIS2_CUDA_GRAPHS=0` turns recording off.
        """
        return (
            tokens.is_cuda
            and not self.failed
            and tokens.shape[0] <= MOST_TOKENS
            and not torch.is_grad_enabled()
            and not autocasting(tokens)
            and os.environ.get(VARIABLE, "1") not in ("0", "off", "false")
        )

    def run(
        self,
        call: Callable[..., Pieces],
        inputs: Sequence[torch.Tensor],
        key: Callable[[], tuple[Any, ...]],
        keep: Sequence[torch.Tensor] = (),
        warm_up: Callable[..., Pieces] | None = None,
    ) -> torch.Tensor:
        """The result of `call(*inputs)`: recorded where `key()` (all that decides what the call reads) is
        new, else replayed.

        `warm_up(*inputs)` runs before a recording: it must launch whatever kernels the call does, on the same
        shapes, which is `call` itself unless a shorter one is given.
        """
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        known = self._seen.get((shapes, key())) if self._seen else None
        if known is not None:
            return known(*inputs)
        in_one_go((warm_up or call)(*inputs))
        while len(self._seen) >= MOST_GRAPHS:
            del self._seen[next(iter(self._seen))]
        try:
            graph = StepGraph(call, inputs, keep)
        except RuntimeError as error:
            log.warning("a forward pass cannot be recorded as a CUDA graph", extra={"fault": repr(error)})
            self.failed = True
            self._seen.clear()
            return in_one_go(call(*inputs))
        self._seen[shapes, key()] = graph  # only asked for now that the device has work
        return graph.result()
