"""The mesh report of an extraction in words that a person understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .stages import size_text

TEXTURE_NAMES = {
    "base_color": "colour",
    "metallic_roughness": "metal and roughness",
    "normal": "relief",
    "occlusion": "contact shadow",
}


def describe_report(report: Mapping[str, Any], size: int | None = None) -> list[str]:
    """Short sentences about what was made; members that a service leaves out are left out here."""
    lines = []
    if isinstance(report.get("faces"), int):
        lines.append(_counts(report))
    skin = _skin(report)
    if skin:
        lines.append(skin)
    box = _size(report.get("size")) or _box(report.get("bounding_box"))
    if box:
        lines.append(box)
    textures = report.get("textures")
    if isinstance(textures, Mapping) and textures:
        side = max(
            (max(pair) for pair in textures.values() if isinstance(pair, (list, tuple)) and pair), default=0
        )
        names = ", ".join(TEXTURE_NAMES.get(str(name), str(name).replace("_", " ")) for name in textures)
        lines.append(f"Textures of {side} x {side} pixels: {names}.")
    if report.get("alpha_mode"):
        lines.append(_transparency(str(report["alpha_mode"])))
    if size:
        lines.append(f"The file has {size_text(size)}.")
    notes = report.get("notes")
    if isinstance(notes, (list, tuple)):
        lines += [f"Note: {note}." for note in notes]
    return lines


def _counts(report: Mapping[str, Any]) -> str:
    text = f"{report['faces']:,} faces"
    if isinstance(report.get("vertices"), int):
        text += f", {report['vertices']:,} vertices"
    parts = report.get("components")
    if isinstance(parts, int):
        text += ", in one piece" if parts == 1 else f", in {parts:,} pieces"
    source = report.get("source_faces")
    return text + (f" (made from {source:,} faces)." if isinstance(source, int) else ".")


def _skin(report: Mapping[str, Any]) -> str:
    if report.get("watertight"):
        return "Watertight: it has no holes, so it can be printed and simulated."
    text = ""
    if report.get("boundary_edges"):
        text = f"Not watertight: {report['boundary_edges']:,} edges are open."
        text += " For printing use the 3D print budget."
    elif "watertight" in report:
        text = "Closed, with surfaces that touch one another. Good for viewing and games."
    if report.get("non_manifold_edges"):
        text += f" {report['non_manifold_edges']:,} edges are shared by more than two faces."
    return text.strip()


def _size(sizes: Any) -> str:
    """Of the file that was written, with the unit that its readers take it in."""
    try:
        sides, unit = next(iter(sizes.values()))
        return "Size " + " x ".join(f"{side:.3g}" for side in sides) + f" {unit}".rstrip() + "."
    except (AttributeError, StopIteration, TypeError, ValueError):
        return ""


def _box(box: Any) -> str:
    try:
        low, high = box
        sides = [b - a for a, b in zip(low, high, strict=True)]
    except (TypeError, ValueError):
        return ""
    return "Size " + " x ".join(f"{side:.2f}" for side in sides) + " (width, height, depth)."


def _transparency(mode: str) -> str:
    words = {
        "OPAQUE": "Opaque.",
        "MASK": "Cut-out transparency: each point is either there or not.",
        "BLEND": "See-through parts are blended.",
    }
    return words.get(mode.upper(), f"Transparency: {mode.lower()}.")
