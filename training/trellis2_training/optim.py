"""Optimiser helpers: averaged weights, adaptive gradient clipping, the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of parameters; young averages forget faster, so short runs are not stuck at
    init.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.live: list[Tensor] = list(parameters)
        self.shadow = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the live weights."""
        self.steps += 1
        rate = min(self.rate, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.shadow, self.live, 1 - rate)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live weights with the averaged ones (call again to swap back)."""
        for live, shadow in zip(self.live, self.shadow, strict=True):
            kept = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(kept)


class AdaptiveGradClipper:
    """Clips the gradient norm to the 95th percentile of the last 1000 norms, at most `max_norm`."""

    def __init__(self, max_norm: float = 1.0, percentile: float = 95, window: int = 1000) -> None:
        self.max_norm, self.percentile, self.window = max_norm, percentile, window
        self.norms: list[float] = []
        self.seen = 0

    @property
    def threshold(self) -> float:
        """The limit in force."""
        if len(self.norms) < self.window:
            return self.max_norm
        quantile = float(torch.quantile(torch.tensor(self.norms), self.percentile / 100))
        return min(quantile, self.max_norm)

    def clip(self, parameters: list[nn.Parameter]) -> float:
        """Scale the gradients in place; returns the norm before, which may be infinite or NaN (then do not
        step).
        """
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.threshold, error_if_nonfinite=False))
        if math.isfinite(norm):
            if len(self.norms) < self.window:
                self.norms.append(norm)
            else:
                self.norms[self.seen % self.window] = norm
            self.seen += 1
        return norm


def learning_rate(base: float, step: int, progress: float, warmup: int, decay: bool) -> float:
    """Linear warm-up in steps, then constant, or a cosine over the budget (`progress` 0..1) down to a
    twentieth.
    """
    rate = base * min(1.0, (step + 1) / warmup)
    if decay:
        rate *= 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return rate


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """All parameters that want gradients."""
    return [p for m in modules for p in m.parameters() if p.requires_grad]


def gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradients, with zeros where a parameter took no part (so that all processes reduce the same
    buffer).
    """
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return [p.grad for p in parameters if p.grad is not None]
