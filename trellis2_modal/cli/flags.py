"""Command line options made from the protocol: every field of a settings model becomes a flag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from ..protocol.controls import Control, controls

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A decorator that adds a flag for each field; what the user does not give arrives as None."""

    def add(command: F) -> F:
        for control in reversed(controls(model)):
            if control.name not in leave_out:
                command = click.option(*_names(control), control.name, **_kind(control))(command)
                if "false" in control.choices:
                    off = control.flag.replace("--", "--no-", 1)
                    shared: dict[str, Any] = {"flag_value": "false", "default": None}
                    command = click.option(off, control.name, **shared, help=f"{control.flag} false.")(
                        command
                    )
        return command

    return add


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that the user gave."""
    return {name: value for name, value in values.items() if value is not None}


def _names(control: Control) -> tuple[str, ...]:
    if control.kind == "bool":
        return (f"{control.flag}/{control.flag.replace('--', '--no-', 1)}",)
    return (control.flag,)


def _kind(control: Control) -> dict[str, Any]:
    group = (
        ""
        if control.group in ("Basic", "Views", "Textures", "Remeshing", "Size", "Game")
        else f"{control.group}: "
    )
    default = "" if control.default is None else f"  [default: {_shown(control.default)}]"
    options: dict[str, Any] = {"default": None, "help": f"{group}{control.help}{default}"}
    if control.kind == "choice":
        options["type"] = click.Choice(control.choices)
    elif control.kind == "int":
        options["type"] = click.IntRange(_whole(control.minimum), _whole(control.maximum))
    elif control.kind == "float":
        options["type"] = click.FloatRange(control.minimum, control.maximum)
    return options


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
