"""How flat token lists divide into the sequences of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class TokenLayout:
    """How a flat token list `[T, C]` divides into the sequences of a batch."""

    lengths: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str) -> TokenLayout:
        return cls(tuple(lengths), torch.device(device))

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @cached_property
    def uniform(self) -> bool:
        """Whether all sequences have one length."""
        return len(set(self.lengths)) == 1

    @cached_property
    def boundaries(self) -> torch.Tensor:
        """Cumulative lengths `[B + 1]` int32."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return ends.to(self.device, torch.int32)

    @cached_property
    def items(self) -> torch.Tensor:
        """Each token's sequence, `[T]` int64."""
        repeats = torch.tensor(self.lengths, device=self.device)
        return torch.repeat_interleave(torch.arange(self.batch_size, device=self.device), repeats)

    def group(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens `[T, C]` as `[B, L, C]` when all sequences have one length, else as `[1, T, C]`."""
        return tokens.unflatten(0, (self.batch_size, self.lengths[0])) if self.uniform else tokens[None]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Per-sequence rows `[B, C]` in a shape that broadcasts over grouped tokens."""
        return values[:, None] if self.uniform else values[self.items][None]
