"""The mesh report of an extraction in words that a person understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..protocol.replies import Estimate
from .stages import duration, size_text
from .stats import Costs, ExportReport

TEXTURE_NAMES = {
    "base_color": "colour",
    "metallic_roughness": "metal and roughness",
    "normal": "relief",
    "occlusion": "contact shadow",
}


def describe_report(report: Mapping[str, Any], size: int | None = None) -> list[str]:
    """Short sentences about what was made; members that a service leaves out are left out here."""
    found = ExportReport.of(report)
    lines = [line for line in (_counts(found), _skin(found), _size(found), _solid(found)) if line]
    if found.textures:
        side = max(max(pair) for pair in found.textures.values())
        names = ", ".join(TEXTURE_NAMES.get(name, name.replace("_", " ")) for name in found.textures)
        lines.append(f"Textures of {side} x {side} pixels: {names}.")
    if found.alpha_mode:
        lines.append(_transparency(found.alpha_mode))
    if size:
        lines.append(f"The file has {size_text(size)}.")
    return lines + [f"Note: {note}." for note in found.notes]


def describe_costs(costs: Costs) -> str:
    """The costs in a few words; empty where there is no price."""
    if costs.price is None or costs.gpu_seconds is None:
        return ""
    return f"about {money(costs.price, costs.currency)} for {duration(costs.gpu_seconds)} of GPU time"


def describe_estimate(estimate: Estimate) -> str:
    """What a job would take, in a few words."""
    if estimate.seconds is None:
        return "not measured yet: no job like it has finished"
    text = f"about {duration(estimate.seconds)}"
    if estimate.price is not None:
        text += f", {money(estimate.price, estimate.currency)}"
    if estimate.wait_seconds:
        text += f", after a wait of about {duration(estimate.wait_seconds)}"
    jobs = "1 job" if estimate.measured == 1 else f"{estimate.measured} jobs"
    return f"{text} (as {jobs} like it)"


def money(amount: float, currency: str) -> str:
    """An amount with two digits that count: 12.50 USD, 0.0042 USD."""
    digits = 2 if amount >= 0.1 or amount == 0 else 4
    return f"{amount:.{digits}f} {currency}"


def _counts(report: ExportReport) -> str:
    if report.faces is None:
        return ""
    text = f"{report.faces:,} faces"
    if report.vertices is not None:
        text += f", {report.vertices:,} vertices"
    if report.components is not None:
        text += ", in one piece" if report.components == 1 else f", in {report.components:,} pieces"
    return text + (f" (made from {report.source_faces:,} faces)." if report.source_faces is not None else ".")


def _skin(report: ExportReport) -> str:
    if report.watertight:
        return "Watertight: it has no holes, so it can be printed and simulated."
    text = ""
    if report.boundary_edges:
        text = f"Not watertight: {report.boundary_edges:,} edges are open."
        text += " For printing use the 3D print budget."
    elif report.watertight is not None:
        text = "Closed, with surfaces that touch one another. Good for viewing and games."
    if report.non_manifold_edges:
        text += f" {report.non_manifold_edges:,} edges are shared by more than two faces."
    return text.strip()


def _size(report: ExportReport) -> str:
    """Of the file that was written, with the unit that its readers take it in; else of the mesh."""
    for sides, unit in report.size.values():
        return "Size " + " x ".join(f"{side:.3g}" for side in sides) + f" {unit}".rstrip() + "."
    if report.bounding_box is None:
        return ""
    low, high = report.bounding_box
    sides = [b - a for a, b in zip(low, high, strict=True)]
    return "Size " + " x ".join(f"{side:.2f}" for side in sides) + " (width, height, depth)."


def _solid(report: ExportReport) -> str:
    """What a printer needs to know of the file that was written."""
    found = next(iter(report.solid.values()), {})
    words = [f"volume {found['volume_cm3']:.3g} cm³"] if "volume_cm3" in found else []
    words += [f"thinnest wall {found['wall_mm']:.2g} mm"] if "wall_mm" in found else []
    return ", ".join(words).capitalize() + "." if words else ""


def _transparency(mode: str) -> str:
    words = {
        "OPAQUE": "Opaque.",
        "MASK": "Cut-out transparency: each point is either there or not.",
        "BLEND": "See-through parts are blended.",
    }
    return words.get(mode.upper(), f"Transparency: {mode.lower()}.")
