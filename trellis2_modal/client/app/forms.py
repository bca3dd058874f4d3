"""Sliders, switches and lists made from the protocol: one component a field, with its one line of help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ...protocol.controls import Control, controls
from ...protocol.presets import PRESETS
from ...protocol.requests import MAX_SEED, SAMPLER_FIELDS, ExtractSettings, GenerateSettings
from ..report import PRINTED, TEXTURED

CUSTOM = "custom"
SIZES = ("size_mm", "wall_mm", "flat_base", "size_m")
"""What goes along with any use: a preset says nothing of it."""

FORMATS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("size_mm", "wall_mm", "flat_base"), PRINTED),
    **dict.fromkeys(("size_m", "pivot"), (*TEXTURED, "ply")),
    **dict.fromkeys(("texture_size", "texture_format", "alpha_mode", "normal_map", "occlusion"), TEXTURED),
    **dict.fromkeys(("compress", "quantize", "lods", "collision"), ("glb",)),
}
"""The formats for which a field means something; all, of the others."""

SWITCH = {"on": True, "off": False}
"""What a switch with a third position, automatic (""), holds."""

CHOICE_TITLES = {
    "auto": "Automatic",
    "true": "Always",
    "false": "Never",
    "opaque": "Opaque",
    "mask": "Cut-out",
    "blend": "Blended",
    "largest": "Keep the largest",
    "all": "Keep all of them",
    "exact": "Exact",
    "fast": "Fast",
    "cycle": "One per step, in turn",
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
    "base": "Centre of the base",
    "center": "Centre of the asset",
}


HINTS = {
    "format": "GLB opens in most programs; STL and 3MF are for printing.",
    "size_m": "0: as generated, within 1 m.",
    "size_mm": "Of the print, in millimetres.",
    "num_samples": "Made in one job, with one seed after the other.",
    "texture": "Off: the shape alone, sooner; it can get its texture later.",
    "keep_latents": "So that a shape can be textured again or refined. A little larger on disk.",
    "fov": "Width of the view in degrees, for pixel-aligned weights. 0: the weights' own.",
}
"""Help where the protocol's own is about API requests."""


def component(control: Control, prefix: str = "set", **options: Any) -> Any:
    """The Gradio component of a field; its id begins with `prefix`."""
    import gradio as gr

    shared = {
        "label": control.title,
        "info": HINTS.get(control.name, control.help),
        "elem_id": f"{prefix}-{control.name}",
        **options,
    }
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
        # without a minimum: Gradio would refuse the 0 that it sends for an empty field once that is seen
        return gr.Number(None, maximum=control.maximum, **shared)
    return gr.Slider(
        control.minimum,
        control.maximum,
        value=control.default,
        step=control.step,
        buttons=[],
        **shared,
    )


def components(
    model: type[BaseModel],
    groups: Sequence[str],
    leave_out: Sequence[str] = (),
    only: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The components of all fields in some groups, or of `only` some of them, by name, in order."""
    chosen = [
        c
        for c in controls(model)
        if c.group in groups and c.name not in leave_out and (only is None or c.name in only)
    ]
    return {control.name: component(control, **options) for control in chosen}


def seed_fields(prefix: str = "", info: str | None = None) -> tuple[Any, Any]:
    """The random seed, and whether each press draws a new one."""
    import gradio as gr

    seed = gr.Number(
        42,
        label="Random seed",
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
        elem_id=f"{prefix}seed",
        min_width=120,
    )
    drawn = gr.Checkbox(
        True, label="New seed each time", info=info, elem_id=f"{prefix}new-seed", min_width=150
    )
    return seed, drawn


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
    return found.get(name, "Your own settings, under Format and details.")


def fits(name: str, kind: str) -> bool:
    """Whether a field means something for a format."""
    return kind in FORMATS.get(name, (kind,))


def format_of(budget: str, chosen: str) -> str:
    """The format that an export for a use has; `chosen` for one of a person's own numbers."""
    return chosen if budget == CUSTOM else str(budget_values(budget)["format"])


def export_settings(budget: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What an export asks for: a preset with a size, or every field that means something for its format.

    A preset goes by its name: a quick hand presses before its numbers have arrived in the fields.
    """
    shown = values_of(ExtractSettings, names, values)
    kind = format_of(budget, str(shown.get("format", "")))
    shown = {name: value for name, value in shown.items() if fits(name, kind)}
    if budget == CUSTOM:
        return shown
    own = {n: v for n, v in shown.items() if n in SIZES and v != ExtractSettings.model_fields[n].default}
    return {"simplify": budget} | own


def budget_values(name: str) -> dict[str, Any]:
    """All settings under a use but sizes; none for `custom`, which leaves everything as it is."""
    if name == CUSTOM:
        return {}
    preset: Mapping[str, Any] = PRESETS[name].settings  # type: ignore[index]
    shown = {control.name for control in controls(ExtractSettings)} - {"simplify", "name", *SIZES}
    values = ExtractSettings.model_validate(preset).model_dump(include=shown)
    for control in controls(ExtractSettings):
        value = values.get(control.name)
        if control.kind == "bool" and control.default is None:
            values[control.name] = {None: "", True: "on", False: "off"}[value]
        elif control.kind == "choice" and isinstance(value, bool):
            values[control.name] = str(value).lower()
    return values
