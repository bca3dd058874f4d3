"""A flow's image tokens as keys and values, made once a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..nn.attention import KeyValue
from ..nn.tokens import TokenLayout


@dataclass(frozen=True)
class ContextCache:
    """Keys and values of the image tokens for every block: made once a sample, used at every step."""

    layout: TokenLayout
    blocks: tuple[KeyValue, ...]

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

    def fits(self, other: ContextCache) -> bool:
        """Whether another context's tensors have these shapes, dtypes and devices."""
        return self.layout.lengths == other.layout.lengths and [
            (x.shape, x.dtype, x.device) for x in self.tensors()
        ] == [(x.shape, x.dtype, x.device) for x in other.tensors()]


def _joined(same: Sequence[KeyValue]) -> KeyValue:
    """One block's keys and values of several batches."""
    results = [b.result for b in same if b.result is not None]
    result = torch.cat(results) if len(results) == len(same) else None
    return KeyValue(torch.cat([b.k for b in same]), torch.cat([b.v for b in same]), result)
