"""The fields of a settings model as plain descriptions, for flags, sliders and documentation rows."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

Kind = Literal["int", "float", "bool", "choice"]


@dataclass(frozen=True)
class Control:
    """One field: `minimum`, `maximum`, `step` for numbers, `choices` for choices; None may be the default."""

    name: str
    title: str
    help: str
    group: str
    kind: Kind
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The command line option, such as `--ss-rescale-t`."""
        return "--" + self.name.replace("_", "-")


def controls(model: type[BaseModel]) -> list[Control]:
    """Describe every field of `model` that has a group, in order of declaration."""
    return [_control(name, field) for name, field in model.model_fields.items() if _extra(field).get("group")]


def _extra(field: Any) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _control(name: str, field: Any) -> Control:
    extra = _extra(field)
    kind, choices = _kind(field.annotation)
    bounds: dict[str, float] = {}
    for rule in field.metadata:
        for bound in ("ge", "le"):
            if hasattr(rule, bound):
                bounds[bound] = getattr(rule, bound)
    return Control(
        name=name,
        title=field.title or name,
        help=field.description or "",
        group=extra["group"],
        kind=kind,
        default=field.default,
        minimum=bounds.get("ge"),
        maximum=bounds.get("le"),
        step=extra.get("step"),
        choices=choices,
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...]]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = [_kind(a) for a in typing.get_args(annotation) if a is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
        # a switch with further positions
        names = [("true", "false") if kind == "bool" else choices for kind, choices in kinds]
        return "choice", tuple(name for choices in reversed(names) for name in choices)
    if origin is Literal:
        return "choice", tuple(typing.get_args(annotation))
    plain: dict[Any, Kind] = {bool: "bool", int: "int", float: "float"}
    if annotation in plain:
        return plain[annotation], ()
    raise TypeError(f"a setting of type {annotation} has no control")
