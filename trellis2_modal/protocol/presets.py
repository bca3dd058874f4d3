"""Named budgets for extraction: what a person means by "for the web" in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PresetName = Literal["web", "game", "mobile", "print"]


@dataclass(frozen=True)
class Preset:
    """A budget: `settings` are fields of `ExtractSettings`."""

    title: str
    help: str
    settings: dict[str, Any]


PRESETS: dict[PresetName, Preset] = {
    "web": Preset(
        "Web",
        "Opens fast in a browser.",
        {
            "decimation_target": 50_000,
            "texture_size": 1_024,
            "texture_format": "jpeg",
            "quantize": True,
            "normal_map": True,
        },
    ),
    "game": Preset(
        "Game",
        "A prop for a PC or console engine; textures that every engine imports.",
        {
            "decimation_target": 100_000,
            "texture_size": 2_048,
            "texture_format": "png",
            "normal_map": True,
            "pivot": "base",
        },
    ),
    "mobile": Preset(
        "Mobile",
        "Small in memory and download.",
        {
            "decimation_target": 15_000,
            "texture_size": 1_024,
            "texture_format": "jpeg",
            "normal_map": True,
        },
    ),
    "print": Preset(
        "3D print",
        "A closed outer shell without inner voids, as STL.",
        {
            "decimation_target": 300_000,
            "texture_size": 1_024,
            "outer_shell": True,
            "format": "stl",
        },
    ),
}


LIGHT_SETTINGS: Mapping[str, Any] = {
    "decimation_target": 10_000,
    "texture_size": 512,
    "texture_format": "jpeg",
}
"""The mesh (GLB) that a viewer turns right after a generation."""
