"""Patterns over the objects of the world: stripes, dots, checks, labels and faces, by tables.

The families decorate sparingly, and object i is always the same object; what training and evaluation see of
patterns is put on here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import table as tb
from .table import Kind, Pattern

_HALVES = 0.3  # of a period: two colours that meet in the part's middle
Kinds = tuple[tuple[Pattern, float, float], ...]
# Pattern and its lowest and highest frequency (periods an object unit; around the axis for sectors).
FIRST_PATTERNS: Kinds = (
    (Pattern.STRIPES, 2.0, 7.0),
    (Pattern.DOTS, 3.0, 7.0),
    (Pattern.CHECKER, 1.5, 5.0),
    (Pattern.RINGS, 2.0, 7.0),
    (Pattern.SECTORS, 3.0, 9.0),
    (Pattern.LABEL, 1.5, 4.0),
    (Pattern.FACE, 1.0, 1.0),
)
ALL_PATTERNS: Kinds = (
    *FIRST_PATTERNS,
    (Pattern.STRIPES, _HALVES, _HALVES),
    (Pattern.BLEND, 1.0, 3.0),
    (Pattern.BRICKS, 2.5, 6.0),
    (Pattern.GRAIN, 2.0, 6.0),
    (Pattern.LETTERS, 1.0, 2.5),
    (Pattern.LETTERS, 1.0, 2.5),
)
_PART = 0.6  # of an object's parts that a pattern is put on


def patterned(
    tables: Tensor, generator: torch.Generator, share: float = 0.25, kinds: Kinds = ALL_PATTERNS
) -> Tensor:
    """Tables `[B, K, ROW]` with patterns on most parts of a `share` of the objects; drawn on the CPU.

    The second colour is any, at least a fifth of full brightness away from the first. With `FIRST_PATTERNS`
    the same generator gives what it gave before there were more.
    """
    device, (count, parts) = tables.device, tables.shape[:2]

    def draw(*shape: int) -> Tensor:
        return torch.rand((count, parts, *shape), generator=generator)

    chosen = torch.rand((count, 1), generator=generator) < share
    chosen = (chosen & (draw() < _PART)).to(device) & (tables[..., tb.KIND] != Kind.EMPTY)
    choice = torch.randint(len(kinds), (count, parts), generator=generator)
    lows, highs = (torch.tensor([k[i] for k in kinds])[choice] for i in (1, 2))
    frequency = lows + (highs - lows) * draw()
    pattern = torch.tensor([float(k[0]) for k in kinds])[choice]
    frequency = torch.where(pattern == Pattern.SECTORS, frequency.round(), frequency).to(device)
    pattern, second = pattern.to(device), draw(3).to(device)
    # Labels and faces have a front: only parts that stand upright show it. A face needs a round part.
    upright = torch.eye(3, device=device).reshape(-1)
    turned = (tables[..., tb.ROTATION : tb.ROTATION + 9] - upright).abs().amax(-1) > 1e-3
    folded = (tables[..., tb.MIRROR] > 0) | (tables[..., tb.RADIAL] > 0) | turned
    flat = tables[..., tb.KIND] != Kind.ELLIPSOID
    pattern = torch.where((pattern == Pattern.FACE) & (flat | folded), float(Pattern.DOTS), pattern)
    labels = (pattern == Pattern.LABEL) | (pattern == Pattern.LETTERS)
    pattern = torch.where(labels & folded, float(Pattern.STRIPES), pattern)
    frequency = torch.where((pattern == Pattern.DOTS) & (frequency < 3), 4.0, frequency)
    first = tables[..., tb.BASE : tb.BASE + 3]
    close = (second - first).abs().amax(-1, keepdim=True) < 0.2
    second = torch.where(close, (first + 0.5) % 1.0, second)

    made = tables.clone()
    made[..., tb.PATTERN], made[..., tb.FREQUENCY] = pattern, frequency
    made[..., tb.PHASE], made[..., tb.TILT] = draw().to(device), (3.14159 * draw()).to(device)
    # Halves meet, and changes of colour are halfway, in the middle of a part.
    halves = (pattern == Pattern.STRIPES) & (frequency < 0.5)
    made[..., tb.PHASE] = torch.where(halves, 0.5, made[..., tb.PHASE])
    made[..., tb.PHASE] = torch.where(pattern == Pattern.BLEND, 0.0, made[..., tb.PHASE])
    made[..., tb.SECOND : tb.SECOND + 3] = second
    made[..., tb.SECOND_METALLIC : tb.SECOND_ROUGHNESS + 1] = tables[..., tb.METALLIC : tb.ROUGHNESS + 1]
    return torch.where(chosen[..., None], made, tables)
