"""Sliders, switches and lists made from the protocol: one component a field, with its one line of help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ...protocol.controls import Control, controls
from ...protocol.presets import PRESETS
from ...protocol.requests import SAMPLER_FIELDS, ExtractSettings, GenerateSettings

CUSTOM = "custom"
SWITCH = {"on": True, "off": False}
"""What a switch with a third position, automatic (""), holds."""

CHOICE_TITLES = {
    "auto": "Automatic",
    "true": "Always",
    "false": "Never",
    "opaque": "Opaque",
    "mask": "Cut-out",
    "blend": "Blended",
    "largest": "Only the largest",
    "all": "All of them",
    "exact": "Exact",
    "fast": "Fast",
    "cycle": "One a step, in turn",
    "average": "All in every step",
    "webp": "WebP",
    "none": "None",
    "meshopt": "Meshopt",
    "draco": "Draco",
    "png": "PNG",
    "jpeg": "JPEG",
    "glb": "GLB",
    "usdz": "USDZ",
    "obj": "OBJ (zip)",
    "stl": "STL",
    "3mf": "3MF",
    "ply": "PLY",
    "origin": "As generated",
    "base": "Middle of the underside",
    "center": "Middle of the asset",
}


def component(control: Control, **options: Any) -> Any:
    """The Gradio component of a field."""
    import gradio as gr

    shared = {"label": control.title, "info": control.help, "elem_id": f"set-{control.name}", **options}
    if control.kind == "bool" and control.default is None:
        return gr.Dropdown([("Automatic", ""), ("On", "on"), ("Off", "off")], value="", **shared)
    if control.kind == "bool":
        return gr.Checkbox(value=control.default, **shared)
    if control.kind == "choice":
        choices = [(CHOICE_TITLES.get(name, name), name) for name in control.choices]
        return gr.Dropdown(choices, value=control.default, **shared)
    assert control.minimum is not None, f"{control.name} has no lower bound"
    assert control.maximum is not None, f"{control.name} has no upper bound"
    if control.default is None:  # a slider always has a value
        return gr.Number(None, minimum=control.minimum, maximum=control.maximum, **shared)
    return gr.Slider(
        control.minimum,
        control.maximum,
        value=control.default,
        step=control.step,
        buttons=[],
        **shared,
    )


def components(
    model: type[BaseModel], groups: Sequence[str], leave_out: Sequence[str] = (), **options: Any
) -> dict[str, Any]:
    """The components of all fields in some groups, by name, in order."""
    chosen = [c for c in controls(model) if c.group in groups and c.name not in leave_out]
    return {control.name: component(control, **options) for control in chosen}


def values_of(model: type[BaseModel], names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What the components hold, with whole numbers where the protocol wants them."""
    known = {control.name: control for control in controls(model)}
    return {
        name: int(value) if known[name].kind == "int" else SWITCH.get(value, value)
        for name, value in zip(names, values, strict=True)
        if value not in (None, "") and not _left_empty(known[name], value)
    }


def _left_empty(control: Control, value: Any) -> bool:
    """Gradio shows a number field without a value as 0, and sends that once it was touched."""
    optional = control.default is None and control.kind in ("int", "float")
    return optional and value == 0 and (control.minimum or 0) > 0


def sampler_updates(
    own: Mapping[str, float], auto: Mapping[str, float] | None, values: Sequence[Any]
) -> list[Any]:
    """The sliders of the sampler fields, once the weights' own settings are known.

    What is at Auto, that is at its value in `auto` (None: everything), takes the weights' own; each says what
    that is.
    """
    import gradio as gr

    known = {control.name: control for control in controls(GenerateSettings)}
    updates = []
    for name, value in zip(SAMPLER_FIELDS, values, strict=True):
        update: dict[str, Any] = {"interactive": True}
        if name in own:
            update["info"] = f"{known[name].help} Auto: {own[name]:g}."
            if auto is None or value == auto.get(name):
                update["value"] = int(own[name]) if known[name].kind == "int" else own[name]
        updates.append(gr.update(**update))
    return updates


def budget_choices() -> list[tuple[str, str]]:
    """Titles and names of the budgets."""
    return [(preset.title, name) for name, preset in PRESETS.items()] + [("Custom", CUSTOM)]


def budget_help(name: str) -> str:
    """One line about a budget."""
    found = {str(preset): value.help for preset, value in PRESETS.items()}
    return found.get(name, "Your own numbers, under the fields below.")


def budget_values(name: str) -> dict[str, Any]:
    """All extraction settings under a budget; none for `custom`, which leaves everything as it is."""
    if name == CUSTOM:
        return {}
    preset: Mapping[str, Any] = PRESETS[name].settings  # type: ignore[index]
    values = ExtractSettings.model_validate(preset).model_dump(exclude={"simplify"})
    for control in controls(ExtractSettings):
        value = values.get(control.name)
        if control.kind == "bool" and control.default is None:
            values[control.name] = {None: "", True: "on", False: "off"}[value]
        elif control.kind == "choice" and isinstance(value, bool):
            values[control.name] = str(value).lower()
    return values
