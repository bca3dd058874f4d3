"""Replaying a network's forward pass as a CUDA graph while nothing but its inputs' values changes.

A sampling run calls one network a dozen times or more with the same shapes. Recording the kernels once and
replaying them takes the launches, which small token counts are bound by, off the processor. A recording holds
the addresses of weights, context and tables; it therefore belongs to one run's context, is looked up by those
addresses, and dies with the context.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .precision import autocasting

log = logging.getLogger(__name__)

VARIABLE = "TRELLIS2_CUDA_GRAPHS"
# Longer lists keep the device busy for longer than their launches take, and a recording keeps their memory.
MOST_TOKENS = 16384
MOST_GRAPHS = 2


class StepGraph:
    """One recorded call: inputs are copied in, the kernels replayed, the output copied out."""

    def __init__(
        self, call: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], keep: Sequence[torch.Tensor]
    ) -> None:
        """Record `call(*inputs)`, which must have run before on these shapes. `keep`: what it reads besides,
        kept alive.
        """
        self._inputs = [x.clone() for x in inputs]
        self._keep = list(keep)
        self._graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream()
        aside = torch.cuda.Stream()
        aside.wait_stream(here)
        # Not torch.cuda.graph(), which empties the allocator's cache and collects garbage first.
        with torch.cuda.stream(aside):
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._output = call(*self._inputs)
            finally:
                self._graph.capture_end()
        here.wait_stream(aside)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()


class StepGraphs:
    """The recordings of one sampling run's context.

    The first call with a key runs as it is (which warms everything up), the second is recorded. At most
    `MOST_GRAPHS` are kept. A recording that fails is logged, and this run goes on without.
    """

    def __init__(self) -> None:
        self._seen: dict[Any, StepGraph | None] = {}
        self._failed = False

    def serve(self, tokens: torch.Tensor) -> bool:
        """Whether calls on these tokens may be recorded: CUDA, no gradients, not too many of them.

        The environment variable `TRELLIS2_CUDA_GRAPHS=0` turns recording off.
        """
        return (
            tokens.is_cuda
            and not self._failed
            and tokens.shape[0] <= MOST_TOKENS
            and not torch.is_grad_enabled()
            and not autocasting(tokens)
            and os.environ.get(VARIABLE, "1") not in ("0", "off", "false")
        )

    def run(
        self,
        call: Callable[..., torch.Tensor],
        inputs: Sequence[torch.Tensor],
        key: tuple[Any, ...],
        keep: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """`call(*inputs)`, replayed where `key` (all that decides what the call reads) is known."""
        key = (*((x.shape, x.dtype) for x in inputs), *key)
        if key not in self._seen:
            while len(self._seen) >= MOST_GRAPHS:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = None
            return call(*inputs)
        graph = self._seen[key]
        if graph is None:
            try:
                graph = self._seen[key] = StepGraph(call, inputs, keep)
            except RuntimeError as error:
                log.warning("a forward pass cannot be recorded as a CUDA graph", extra={"fault": repr(error)})
                self._failed = True
                self._seen.clear()
                return call(*inputs)
        return graph(*inputs)
