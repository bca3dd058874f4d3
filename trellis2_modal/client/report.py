"""The mesh report of an extraction in words that a person understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..protocol.replies import Estimate
from .stages import duration, size_text
from .stats import Costs, ExportReport

TEXTURE_NAMES = {
    "base_color": "base colour",
    "metallic_roughness": "metallic-roughness",
    "normal": "normal map",
    "occlusion": "ambient occlusion",
}


TEXTURED, PRINTED = ("glb", "usdz", "obj"), ("stl", "3mf")
"""Formats with textures, and those for printing."""

THIN_WALL = 0.8
"""Millimetres: two lines of a common 0.4 mm nozzle."""


@dataclass(frozen=True)
class Verdict:
    """What a file is good for, and whether it is."""

    good: bool
    words: str


def judge_file(kind: str, report: Mapping[str, Any], settings: Mapping[str, Any]) -> Verdict:
    """What a file of a format is good for, in a sentence: whether it can be printed, or what opens it."""
    if kind in PRINTED:
        return _printable(ExportReport.of(report), settings.get("simplify") == "print")
    if kind != "glb":
        return Verdict(True, OPENED_BY.get(kind, ""))
    needs = {
        "Draco": settings.get("compress") == "draco",
        "Meshopt": settings.get("compress") == "meshopt",
        "WebP textures": settings.get("texture_format") == "webp",
    }
    known = " and ".join(name for name, needed in needs.items() if needed)
    if known:
        return Verdict(False, f"Opens only in programs that read {known}.")
    engines = "web browsers, game engines and Blender"
    but = "; not in Open3D or MeshLab" if settings.get("quantize") else ""
    return Verdict(True, f"Opens in {engines}{but}.")


OPENED_BY = {
    "usdz": "Opens in Quick Look on iPhone, iPad and Mac.",
    "obj": "Opens in most 3D programs. Unpack the zip first.",
    "ply": "Opens in Blender and MeshLab, with colours at its vertices.",
}


def _printable(report: ExportReport, meant: bool) -> Verdict:
    """`meant`: it was exported for 3D print, so that there is no better advice."""
    wall = next(iter(report.solid.values()), {}).get("wall_mm")
    reasons = [f"{report.boundary_edges:,} edges are open"] if report.boundary_edges else []
    if report.non_manifold_edges:
        reasons.append(f"{report.non_manifold_edges:,} edges are shared by more than two faces")
    if not report.watertight and not reasons:
        reasons.append("it was not checked" if report.watertight is None else "it is not closed")
    if reasons:
        advice = "" if meant else " Export it for 3D print."
        return Verdict(False, f"Not printable: {' and '.join(reasons)}.{advice}")
    if wall is not None and wall < THIN_WALL:
        advice = "Make it larger, or set the thinnest wall."
        return Verdict(False, f"Too thin to print: a wall of {wall:.2g} mm. {advice}")
    return Verdict(True, "Printable.")


def describe_report(report: Mapping[str, Any], size: int | None = None, kind: str = "glb") -> list[str]:
    """Short sentences about a file of a format; members that a service leaves out are left out here."""
    found = ExportReport.of(report)
    lines = [
        line for line in (_counts(found), _skin(found), _sides(found), _size(found), _solid(found)) if line
    ]
    if found.textures and kind in TEXTURED:
        side = max(max(pair) for pair in found.textures.values())
        names = ", ".join(TEXTURE_NAMES.get(name, name.replace("_", " ")) for name in found.textures)
        lines.append(f"Textures of {side} x {side} pixels: {names}.")
    if found.alpha_mode and kind in TEXTURED:
        lines.append(_transparency(found.alpha_mode))
    if size:
        lines.append(f"File size {size_text(size)}.")
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
    if not estimate.measured:
        return f"{text} (typical of its device; this service has measured none)"
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
        text += " For printing, export for 3D print."
    elif report.watertight is not None:
        text = "Closed, with surfaces that touch one another. Good for viewing and games."
    if report.non_manifold_edges:
        text += f" {report.non_manifold_edges:,} edges are shared by more than two faces."
    return text.strip()


def _sides(report: ExportReport) -> str:
    if report.inside_out is None:
        return ""
    if report.inside_out < 0.0005:
        return "Every face that can be seen points outward."
    turned = f"{report.inside_out:.1%} of the visible surface is inside out"
    return f"{turned}: engines that cull back faces show holes there."


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
