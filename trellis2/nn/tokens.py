"""How flat token lists divide into the sequences of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch


@dataclass(frozen=True)
class TokenLayout:
    """How a flat token list `[T, C]` divides into the sequences of a batch."""

    lengths: tuple[int, ...]
    device: torch.device
    recurring: bool = False  # every run has these lengths again: what is made once for them pays

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str, recurring: bool = False) -> TokenLayout:
        return cls(tuple(lengths), torch.device(device), recurring)

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @cached_property
    def uniform(self) -> bool:
        """Whether all sequences have one length."""
        return len(set(self.lengths)) == 1

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

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

    def broadcast_per_item(self, values: torch.Tensor) -> torch.Tensor:
        """Per-sequence rows `[B, C]` in a shape that broadcasts over grouped tokens."""
        return values[:, None] if self.uniform else values[self.items][None]


@dataclass(frozen=True)
class PixelTokens:
    """What a pixel-aligned flow sees of pictures: global tokens, and the feature of each of its own tokens.

    `tokens [B, L, C_ctx]` or a list of `[L_b, C_ctx]`. `features [B, L, P]` of a dense latent (z fastest) or
    `[T, P]` in the row order of a sparse one; None where all are zero, as in the null condition.
    """

    tokens: torch.Tensor | Sequence[torch.Tensor]
    features: torch.Tensor | None

    @property
    def rows(self) -> torch.Tensor | None:
        """The features as `[T, P]`."""
        dense = self.features is not None and self.features.ndim == 3
        return self.features.flatten(0, 1) if dense else self.features  # type: ignore[union-attr]

    def to(self, device: torch.device | str) -> PixelTokens:
        features = None if self.features is None else self.features.to(device)
        if isinstance(self.tokens, torch.Tensor):
            return PixelTokens(self.tokens.to(device), features)
        return PixelTokens([t.to(device) for t in self.tokens], features)

    def null(self) -> PixelTokens:
        """The condition of no picture: zeros for tokens and features."""
        if isinstance(self.tokens, torch.Tensor):
            return PixelTokens(torch.zeros_like(self.tokens), None)
        return PixelTokens([torch.zeros_like(t) for t in self.tokens], None)

    def repeated(self, samples: int) -> PixelTokens:
        """A condition of batch 1 for `samples` items; features of a sparse latent already are for all."""
        tokens, features = self.tokens, self.features
        if isinstance(tokens, torch.Tensor) and len(tokens) == 1:
            tokens = tokens.expand(samples, -1, -1)
        if features is not None and features.ndim == 3 and len(features) == 1:
            features = features.expand(samples, -1, -1)
        return replace(self, tokens=tokens, features=features)

    def followed_by(self, other: PixelTokens) -> PixelTokens:
        """Both as one batch; missing features become zeros."""
        rows, more = self.rows, other.rows
        if rows is None and more is not None:
            rows = torch.zeros_like(more)
        if more is None and rows is not None:
            more = torch.zeros_like(rows)
        features = None if rows is None or more is None else torch.cat([rows, more])
        return PixelTokens([*self.tokens, *other.tokens], features)
