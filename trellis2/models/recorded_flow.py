"""A flow as a sampling run calls it: its steps replayed as CUDA graphs, from one run to the next where the
token count never changes.

Start reading at `RecordedFlow`; `trellis2.nn.cuda_graphs` records, `flow.py` computes.
"""

from __future__ import annotations

import copy
import threading
import weakref
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from ..backends import product_backend
from ..nn.cuda_graphs import Recordings, SegmentedCall
from ..nn.fp8 import quantized_blocks
from ..nn.tokens import TokenLayout
from .context import ContextCache
from .flow import Context, FlowTransformer, SparseStructureFlowModel, check_batch
from .memory import free_memory

SEGMENT_BLOCKS = 5
ROOM_BESIDE_FP8 = 6_000_000_000  # bytes that stay free for a decoder: 4.2 GB at 12,376 tokens
MAX_CONTEXTS = 2  # a run has two: of the picture and of no picture


@dataclass(frozen=True)
class RecordedContext:
    """A context and the recordings that read it."""

    cache: ContextCache
    recordings: Recordings = field(default_factory=Recordings, compare=False)


class RecordedFlow:
    """A flow network with the interface of its `forward`, whose repeated steps are replayed.

    Only calls with a context from this object's `prepare_cond` are recorded. Safe to share between threads
    that use one stream.
    """

    def __init__(self, flow: FlowTransformer, low_memory: bool = False) -> None:
        """`low_memory`: do not store the keys and values of long contexts, and let `fast` move the weights
        that it replaces to the CPU, from where the flow's owner has to bring them back before an exact run.
        """
        self.flow = flow
        self.low_memory = low_memory
        self.fp8 = False  # whether the large products are of 8-bit floats
        self._contexts = ContextPool()
        self._weights: tuple[int, ...] = ()
        self._fast: tuple[tuple[tuple[int, int], ...], RecordedFlow] | None = None
        self._lock = threading.Lock()

    @property
    def resolution(self) -> int:
        return self.flow.resolution

    @property
    def in_channels(self) -> int:
        return self.flow.in_channels

    def fast(self) -> RecordedFlow:
        """The same network with its large products in 8 bits, where the device multiplies those faster and
        has room for a second copy of the weights.

        Quantised at the first call, and again when weights have moved or changed. The result, half as large
        as the blocks' weights, is kept beside them (see `low_memory`) and has recordings of its own.
        """
        flow = self.flow
        if flow.training or torch.is_grad_enabled():
            return self
        if product_backend(flow.device, flow.dtype).backend == "torch":
            return self
        with self._lock:
            if self._fast is None or self._fast[0] != self._state_of_weights():
                self._fast = None  # freed before the next is made
                if not self.low_memory and not self._has_room():
                    return self
                other = copy.copy(flow)
                blocks = quantized_blocks(flow.blocks, beside=not self.low_memory)
                other._modules = {**flow._modules, "blocks": blocks}
                made = RecordedFlow(other, self.low_memory)
                made.fp8 = True
                self._fast = self._state_of_weights(), made
            return self._fast[1]

    def _has_room(self) -> bool:
        """Whether the blocks' weights in 8 bits fit beside them, and what comes after sampling, too."""
        free = free_memory(self.flow.device)
        made = sum(p.numel() for p in self.flow.blocks.parameters())
        return free is None or free - made >= ROOM_BESIDE_FP8

    def _state_of_weights(self) -> tuple[tuple[int, int], ...]:
        """Where the blocks' weights are, and how often they were written to."""
        parameters = self.flow.blocks.parameters()
        return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in parameters)

    def prepare_cond(self, cond: Context) -> RecordedContext:
        """As the flow's own. Weights must stay where they are while the result is in use."""
        context = RecordedContext(self.flow.prepare_cond(cond, store=not self.low_memory))
        pooled = isinstance(self.flow, SparseStructureFlowModel) and not torch.is_grad_enabled()
        if not pooled or self.flow.training or context.cache.layout.device.type != "cuda":
            return context
        weights = tuple(p.data_ptr() for p in self.flow.parameters())
        if weights != self._weights:  # older recordings read weights that have moved
            self._weights = weights
            self._contexts.clear()
        return self._contexts.borrow(context)

    def __call__(
        self, x: Any, t: torch.Tensor, cond: Context | ContextCache | RecordedContext, concat_cond: Any = None
    ) -> Any:
        flow = self.flow
        if not isinstance(cond, RecordedContext):
            return flow(x, t, cond, concat_cond)
        tokens = flow.to_tokens(x, concat_cond)
        if flow.training or not cond.recordings.serve(tokens.features):
            return flow(x, t, cond.cache, concat_cond)
        check_batch(tokens.layout, t, cond.cache)
        velocity = cond.recordings.run(
            segmented(flow, tokens.layout, cond.cache),
            (tokens.features, t, tokens.phases, tokens.positions),
            key=tokens.layout.lengths,
            keep=tokens.layout,
            warm_up=segmented(flow, tokens.layout, cond.cache, blocks=1),
        )
        return flow.to_latent(velocity, x)


def segmented(
    flow: FlowTransformer, layout: TokenLayout, context: ContextCache, blocks: int | None = None
) -> SegmentedCall:
    """The forward pass from `embed`'s arguments to rows of velocity, through the first `blocks` blocks (None:
    all).
    """
    total = flow.config.num_blocks if blocks is None else blocks
    cuts = range(0, total, SEGMENT_BLOCKS)
    several = [slice(start, min(start + SEGMENT_BLOCKS, total)) for start in cuts]
    passes = [partial(flow.run_blocks, layout=layout, context=context, which=which) for which in several]
    return SegmentedCall((flow.embed, *passes, flow.output))


@dataclass(eq=False)
class _Pooled:
    context: RecordedContext
    borrowed: weakref.ref[RecordedContext] | None = None

    @property
    def idle(self) -> bool:
        return self.borrowed is None or self.borrowed() is None


class ContextPool:
    """Contexts that outlive their run, with their recordings, for a network whose token count never changes.

    A recording reads keys and values at fixed addresses: a new run's are copied to where those of an earlier
    one were, once nobody holds that any more.
    """

    def __init__(self) -> None:
        self._pooled: list[_Pooled] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pooled)

    def borrow(self, fresh: RecordedContext) -> RecordedContext:
        """`fresh`, in pooled memory where such is idle; else it joins the pool, while there is room."""
        if any(x.is_inference() for x in fresh.cache.tensors()):
            return fresh  # such may not be written to later on
        with self._lock:
            self._pooled = [p for p in self._pooled if not (p.idle and p.context.recordings.failed)]
            pooled = next((p for p in self._pooled if p.idle and p.context.cache.fits(fresh.cache)), None)
            if pooled is not None:
                for old, new in zip(pooled.context.cache.tensors(), fresh.cache.tensors(), strict=True):
                    old.copy_(new)
            elif len(self._pooled) < MAX_CONTEXTS or self._drop_idle():
                pooled = _Pooled(replace(fresh, cache=fresh.cache.with_own_features()))
                self._pooled.append(pooled)
            else:
                return fresh
            lent = replace(pooled.context)
            pooled.borrowed = weakref.ref(lent)
            return lent

    def _drop_idle(self) -> bool:
        idle = next((p for p in self._pooled if p.idle), None)
        if idle is not None:
            self._pooled.remove(idle)
        return idle is not None

    def clear(self) -> None:
        """Forget all; what is borrowed stays good for those who hold it."""
        with self._lock:
            self._pooled = []
