"""Runs the velocity network with and without its condition, doing no work twice.

Keys and values of the cross attention depend on the condition alone, so a model that offers `prepare_cond` is
asked for them once per sampling run. Where the voxels are few, one forward pass over [conditional |
unconditional] beats two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InvalidArgumentError
from ..nn.tokens import PixelTokens
from .acceleration import Passes, VelocityHistory
from .flow import Interval, Latent, guide, rescale_guided, strength_at

if TYPE_CHECKING:
    from ..sparse import SparseTensor

# Up to this many tokens two passes in one pay: one recording less, fewer launches and reads of the weights.
BATCHED_GUIDANCE_TOKENS = 3072


@dataclass(frozen=True)
class Guidance:
    """How strongly, how corrected, and over which closed interval of t the condition is amplified."""

    strength: float = 1.0
    rescale: float = 0.0
    interval: Interval = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InvalidArgumentError(f"guidance_strength must be finite, got {self.strength!r}")
        if not 0.0 <= self.rescale <= 1.0:
            raise InvalidArgumentError(f"guidance_rescale must lie in 0..1, got {self.rescale!r}")
        if len(self.interval) != 2:
            raise InvalidArgumentError(f"guidance_interval needs two numbers, got {len(self.interval)}")
        low, high = self.interval
        if not 0.0 <= low <= high <= 1.0:
            raise InvalidArgumentError(
                f"guidance_interval must be two rising numbers in 0..1, got [{low!r}, {high!r}]"
            )


VIEW_MODES = ("cycle", "average")


@dataclass(frozen=True)
class SeveralViews:
    """Conditions of several pictures of one object, for networks that were trained on one: an approximation.

    "cycle": each step sees the next picture, at the cost of one. "average": each step averages the
    conditional velocities of all pictures. Neither knows from where a picture was taken.
    """

    conds: tuple[Any, ...]
    mode: str = "cycle"

    def __post_init__(self) -> None:
        if self.mode not in VIEW_MODES:
            raise InvalidArgumentError(f"view mode {self.mode!r} is none of {', '.join(VIEW_MODES)}")
        if not self.conds:
            raise InvalidArgumentError("several views need at least one condition")

    def repeated(self, samples: int) -> SeveralViews:
        """Image tokens of batch 1 for `samples` items."""
        conds = (
            c.repeated(samples) if isinstance(c, PixelTokens) else c.expand(samples, -1, -1)
            for c in self.conds
        )
        return replace(self, conds=tuple(conds))

    def to(self, device: torch.device | str) -> SeveralViews:
        return replace(self, conds=tuple(c.to(device) for c in self.conds))

    def of_step(self, step: int) -> range:
        """Which views a step sees."""
        count = len(self.conds)
        return range(step % count, step % count + 1) if self.mode == "cycle" else range(count)


class GuidedModel:
    """A velocity network bound to its conditions: call it with a state and a time, get the guided velocity.

    `extra` (such as `concat_cond`) goes to the network unchanged. `batched` forces the one-pass form on or
    off; None decides by the number of tokens, and only for models that take part in it (those with
    `prepare_cond`). `cond` may be `SeveralViews`, among which each call takes the next. `passes`
    counts what was computed.
    """

    def __init__(
        self,
        model: Any,
        cond: Any,
        neg_cond: Any = None,
        guidance: Guidance | None = None,
        sigma_min: float = 1e-5,
        extra: dict[str, Any] | None = None,
        batched: bool | None = None,
    ) -> None:
        self.model = model
        self.guidance = guidance or Guidance()
        self.sigma_min = sigma_min
        self.extra = extra or {}
        self.batched = batched
        self._views = cond if isinstance(cond, SeveralViews) else SeveralViews((cond,))
        self._contexts: dict[int, Any] = {}
        self._pair_contexts: dict[int, Any] = {}
        self._step = 0
        self._forecast: frozenset[int] = frozenset()
        self._history = VelocityHistory()
        self.passes = Passes()
        # Looked at now, while the device has nothing to do: the look waits for all that it was given before.
        shrinks = self.guidance.strength != 1.0 and hasattr(model, "prepare_cond")
        self._neg_cond = distinct_tokens(neg_cond) if shrinks else neg_cond
        self._pair: Any = None  # the sparse state stacked on itself, whose coordinates all steps share
        if neg_cond is None and self.guidance.strength != 1.0:
            raise InvalidArgumentError(
                f"guidance_strength {self.guidance.strength} needs neg_cond; pass it, or use strength 1"
            )

    def __call__(self, x_t: Latent, t: float) -> Latent:
        g = self.guidance
        strength = strength_at(t, g.strength, g.interval)
        views, forecast = self._views.of_step(self._step), self._step in self._forecast
        self._step += 1
        if strength == 0.0:
            self.passes.null += 1
            return self._forward(x_t, t, self._neg_context, self.extra)
        if forecast:
            self.passes.forecast += 1
            v_cond = self._history.conditional(t)
            v = self._history.guided(v_cond, strength)
        else:
            self.passes.conditional += len(views)
            if strength == 1.0:
                v = v_cond = self._conditional(x_t, t, views)
                self._remember(t, v_cond, None)
            else:
                self.passes.null += 1
                v_cond, v_neg = self._both(x_t, t, views)
                v = guide(v_cond, v_neg, strength)
                self._remember(t, v_cond, v_neg)
        if strength == 1.0:
            return v
        return rescale_guided(x_t, t, v_cond, v, g.rescale, self.sigma_min) if g.rescale > 0 else v

    def forecast_at(self, steps: frozenset[int]) -> None:
        """Do without the network in these calls, counted from 0."""
        # Neighbouring steps that see different pictures say nothing of one another.
        cycling = len(self._views.of_step(0)) < len(self._views.conds)
        self._forecast = frozenset() if cycling else steps

    def _remember(self, t: float, v_cond: Latent, v_neg: Latent | None) -> None:
        if self._forecast:
            self._history.add(t, v_cond, v_neg)

    def _context(self, view: int) -> Any:
        if view not in self._contexts:
            self._contexts[view] = self._prepare(self._views.conds[view])
        return self._contexts[view]

    @cached_property
    def _neg_context(self) -> Any:
        return self._prepare(self._neg_cond)

    def _pair_context(self, view: int) -> Any:
        if view not in self._pair_contexts:
            cond, null = self._views.conds[view], self._neg_cond
            # A list: the null condition of equal tokens shrinks to one, whatever the condition's length.
            pair = cond.followed_by(null) if isinstance(cond, PixelTokens) else [*cond, *null]
            self._pair_contexts[view] = self._prepare(pair)
        return self._pair_contexts[view]

    @cached_property
    def _pair_extra(self) -> dict[str, Any]:
        return {name: twice(value) for name, value in self.extra.items()}

    def _prepare(self, cond: Any) -> Any:
        return self.model.prepare_cond(cond) if hasattr(self.model, "prepare_cond") else cond

    def _forward(self, x_t: Latent, t: float, context: Any, extra: dict[str, Any]) -> Latent:
        times = torch.full((x_t.shape[0],), 1000.0 * t, dtype=torch.float32, device=x_t.device)
        return self.model(x_t, times, context, **extra)

    def _conditional(self, x_t: Latent, t: float, views: range) -> Latent:
        """The conditional velocity, averaged over the views."""
        first, *others = views
        v = self._forward(x_t, t, self._context(first), self.extra)
        for view in others:
            v = v + self._forward(x_t, t, self._context(view), self.extra)
        return v * (1 / len(views)) if others else v

    def _both(self, x_t: Latent, t: float, views: range) -> tuple[Latent, Latent]:
        """The conditional and the unconditional velocity."""
        if len(views) > 1 or not self._in_one_pass(x_t):
            return (
                self._conditional(x_t, t, views),
                self._forward(x_t, t, self._neg_context, self.extra),
            )
        context = self._pair_context(views[0])
        if isinstance(x_t, torch.Tensor):
            dense: Any = self._forward(twice(x_t), t, context, self._pair_extra)
            v_cond, v_neg = dense.chunk(2)
            return v_cond, v_neg
        v: Any = self._forward(self._sparse_pair(x_t), t, context, self._pair_extra)
        rows = x_t.feats.shape[0]
        return x_t.replace(v.feats[:rows]), x_t.replace(v.feats[rows:])

    def _in_one_pass(self, x_t: Latent) -> bool:
        if self.batched is not None:
            return self.batched
        takes_pairs = isinstance(self._views.conds[0], (torch.Tensor, PixelTokens))
        if not hasattr(self.model, "prepare_cond") or not takes_pairs:
            return False
        if not all(value is None or hasattr(value, "shape") for value in self.extra.values()):
            return False
        tokens = x_t.numel() // x_t.shape[1] if isinstance(x_t, torch.Tensor) else x_t.feats.shape[0]
        return tokens <= BATCHED_GUIDANCE_TOKENS

    def _sparse_pair(self, x_t: SparseTensor) -> Any:
        """x_t stacked on itself; coordinates and what is cached for them are built once."""
        if self._pair is None:
            self._pair = twice(x_t)
        return self._pair.replace(torch.cat([x_t.feats, x_t.feats]))


def distinct_tokens(cond: Any) -> Any:
    """One token an item where all of an item's tokens are equal, as in the all-zero null condition.

    Attention over equal tokens gives their common value however many there are.
    """
    if isinstance(cond, PixelTokens):
        unseen = cond.features is None or not bool(cond.features.any())
        return PixelTokens(distinct_tokens(cond.tokens), None if unseen else cond.features)
    if isinstance(cond, torch.Tensor) and cond.ndim == 3 and bool((cond == cond[:, :1]).all()):
        return cond[:, :1]
    return cond


def twice(x: Any) -> Any:
    """A batch followed by itself; None stays None."""
    if x is None:
        return None
    if isinstance(x, torch.Tensor):
        return torch.cat([x, x])
    from ..sparse import sparse_cat

    return sparse_cat([x, x])
