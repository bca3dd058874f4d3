"""cuDNN's attention for lengths that no run had before: keys and queries padded to one of few lengths.

cuDNN plans each new shape for about 50 ms on Hopper, and torch keeps each thread's plans apart. Padded to
bucket lengths, attention needs one plan a bucket, and `plan_buckets` makes those before anybody waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

# Queries, keys and values `[B, H, T, D]` to the output and the log of the sum of exponentials `[B, H, Tq]`.
AttentionWithLse = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

SHORTEST, LONGEST = 1024, 8192
"""Queries for which plans are made: shorter lists wait for launches, not for attention; from `LONGEST` on
padding costs about what a plan does."""


@dataclass(frozen=True)
class Shape:
    """What a plan depends on besides the number of queries; `keys`: a bucket, None in self-attention."""

    device: torch.device
    dtype: torch.dtype
    batch: int
    heads: int
    head_dim: int
    keys: int | None


class Plans(threading.local):
    """The shapes that this thread asked for, and the shapes and query buckets that it has plans for."""

    def __init__(self) -> None:
        self.asked: set[Shape] = set()
        self.made: set[tuple[Shape, int]] = set()

    def has(self, q: torch.Tensor, k: torch.Tensor) -> bool:
        """Whether the bucket of `q [B, Tq, H, D]` over `k [B, Tk, H, D]` is planned; remembers the shape."""
        batch, queries, heads, head_dim = q.shape
        keys = None if queries == k.shape[1] else bucket(k.shape[1])
        shape = Shape(q.device, q.dtype, batch, heads, head_dim, keys)
        self.asked.add(shape)
        return (shape, bucket(queries)) in self.made

    def make(self, kernel: AttentionWithLse) -> int:
        """Run `kernel` once in every bucket of the shapes that were asked for; returns how many are new."""
        before = len(self.made)
        for shape in self.asked:
            for queries in buckets(SHORTEST, LONGEST):
                if (shape, queries) not in self.made:
                    _run_once(shape, queries, kernel)
                    self.made.add((shape, queries))
        return len(self.made) - before


def _run_once(shape: Shape, queries: int, kernel: AttentionWithLse) -> None:
    def zeros(tokens: int) -> torch.Tensor:
        size = shape.batch, tokens, shape.heads, shape.head_dim
        return torch.zeros(size, device=shape.device, dtype=shape.dtype)

    k = zeros(queries if shape.keys is None else shape.keys)
    padded_attention(zeros(queries), k, k, kernel)


PLANS = Plans()


def plan_buckets() -> int:
    """Make cuDNN's plans, for this thread, of the attention that it has asked for until now.

    Returns how many were made: 0 where another kernel is the choice.
    """
    with torch.no_grad():
        return PLANS.make(cudnn_with_lse)


def bucket(length: int) -> int:
    """The next length of a series with 16 steps an octave, each a multiple of 64."""
    step = max(64, (1 << max(length - 1, 1).bit_length()) // 32)
    return -(-length // step) * step


def buckets(shortest: int, longest: int) -> list[int]:
    """The series between two lengths."""
    found = [bucket(shortest)]
    while found[-1] < longest:
        found.append(bucket(found[-1] + 1))
    return found


def padded_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: AttentionWithLse
) -> torch.Tensor:
    """Exact attention of `q [B, Tq, H, D]` over `k, v [B, Tk, H, D]` by a kernel that sees only buckets.

    A key of zeros adds exp(0) = 1 to the softmax's denominator and nothing to its numerator, so n of them are
    undone by dividing by 1 - n exp(-lse).
    """
    batch, queries, heads, _ = q.shape
    padding = bucket(k.shape[1]) - k.shape[1]
    q, k, v = (F.pad(x, (0, 0, 0, 0, 0, bucket(x.shape[1]) - x.shape[1])) for x in (q, k, v))
    out, lse = kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    out = out.transpose(1, 2)[:, :queries]
    of_all = lse.float().reshape(batch, heads, -1)[:, :, :queries].transpose(1, 2)
    share = 1 - padding * torch.exp(-of_all)[..., None]  # of the true keys in the denominator
    return torch.div(out, share, out=torch.empty_like(out))  # in float32, rounded once


def cudnn_with_lse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cuDNN's attention, as an `AttentionWithLse`."""
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)
    return out, lse
