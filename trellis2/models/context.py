"""A flow's image tokens as keys and values, made once a sample; and what some flows keep of them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ..nn.attention import KeyValue
from ..nn.step_graph import StepGraphs
from ..nn.tokens import TokenLayout

MOST_KEPT = 2  # a run has two: of the picture and of no picture


@dataclass(frozen=True)
class ContextCache:
    """Keys and values of the image tokens for every block: made once a sample, used at every step.

    What else only saves time during one sampling run lives and dies with it: recorded CUDA graphs and tables.
    """

    layout: TokenLayout
    blocks: tuple[KeyValue, ...]
    graphs: StepGraphs = field(default_factory=StepGraphs, compare=False)
    tables: dict[int, torch.Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def concatenate(cls, caches: Sequence[ContextCache]) -> ContextCache:
        """The caches of several batches as one batch, for conditional and unconditional passes in one
        forward.
        """
        layout = TokenLayout.of([n for c in caches for n in c.layout.lengths], caches[0].layout.device)
        return cls(layout, tuple(map(_joined, zip(*(c.blocks for c in caches), strict=True))))

    def tensors(self) -> list[torch.Tensor]:
        """All keys, values and results, block by block."""
        return [x for b in self.blocks for x in (b.k, b.v, b.result) if x is not None]


def _joined(same: Sequence[KeyValue]) -> KeyValue:
    """One block's keys and values of several batches."""
    results = [b.result for b in same if b.result is not None]
    result = torch.cat(results) if len(results) == len(same) else None
    return KeyValue(torch.cat([b.k for b in same]), torch.cat([b.v for b in same]), result)


@dataclass(eq=False)
class _Kept:
    cache: ContextCache
    borrowed: weakref.ref[ContextCache] | None = None

    @property
    def idle(self) -> bool:
        return self.borrowed is None or self.borrowed() is None

    def fits(self, other: ContextCache) -> bool:
        mine, theirs = self.cache.tensors(), other.tensors()
        return self.cache.layout.lengths == other.layout.lengths and [
            (x.shape, x.dtype, x.device) for x in mine
        ] == [(x.shape, x.dtype, x.device) for x in theirs]


class KeptContexts:
    """Contexts that outlive their run, with their recordings, for a network whose token count never changes.

    A recording reads keys and values at fixed addresses: a new run's are copied to where those of an earlier
    one were, once nobody holds that any more. Safe to share between threads that use one stream.
    """

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[KeptContexts], tuple[()]]:
        return KeptContexts, ()  # a copied network keeps its own

    def lend(self, fresh: ContextCache) -> ContextCache:
        """`fresh`, in kept memory where such is idle; else it is kept itself, while there is room."""
        if any(x.is_inference() for x in fresh.tensors()):
            return fresh  # such may not be written to later on
        with self._lock:
            self._kept = [k for k in self._kept if not (k.idle and k.cache.graphs.failed)]
            kept = next((k for k in self._kept if k.idle and k.fits(fresh)), None)
            if kept is not None:
                for mine, new in zip(kept.cache.tensors(), fresh.tensors(), strict=True):
                    mine.copy_(new)
            elif len(self._kept) < MOST_KEPT or self._forget_one():
                kept = _Kept(fresh)
                self._kept.append(kept)
            else:
                return fresh
            lent = replace(kept.cache)
            kept.borrowed = weakref.ref(lent)
            return lent

    def _forget_one(self) -> bool:
        idle = next((k for k in self._kept if k.idle), None)
        if idle is not None:
            self._kept.remove(idle)
        return idle is not None

    def clear(self) -> None:
        """Forget all; what is lent stays good for those who hold it."""
        with self._lock:
            self._kept = []
