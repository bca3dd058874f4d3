"""What every renderer shares: its result and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import torch

from trellis2.errors import InvalidArgumentError

OptionsT = TypeVar("OptionsT")


class Rendering(dict[str, torch.Tensor]):
    """Maps by name, also as attributes: `rendering.normal` is `rendering["normal"]`."""

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no map {name!r}; there are {sorted(self)}") from None


def parse_options(kind: type[OptionsT], given: Mapping[str, Any] | None) -> OptionsT:
    """Options of a renderer from a mapping; raises InvalidArgumentError for unknown names and senseless
    sizes.
    """
    given = dict(given or {})
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = [n for n in given if n not in names]
    if unknown:
        raise InvalidArgumentError(f"unknown rendering options {unknown}; there are {names}")
    options = kind(**given)
    for name in ("resolution", "ssaa", "peel_layers", "occlusion_samples"):
        value = getattr(options, name, 1)
        if not isinstance(value, int) or value < 1:
            raise InvalidArgumentError(f"{name} must be a whole number from 1, got {value!r}")
    near, far = getattr(options, "near", 1.0), getattr(options, "far", 2.0)
    if not 0.0 < near < far:
        raise InvalidArgumentError(f"clip planes must satisfy 0 < near < far, got near {near} and far {far}")
    return options
