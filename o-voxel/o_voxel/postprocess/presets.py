"""Named budgets: what a use usually wants, in one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Arguments of `to_glb`, by its own names: `to_glb(..., **PRESETS["web"].arguments())`."""

    decimation_target: int
    texture_size: int
    remesh: bool
    remesh_project: float
    texture_format: str
    normal_map: bool
    outer_shell: bool | None = None

    def arguments(self) -> dict[str, Any]:
        return asdict(self)


# trellis2_modal.protocol.presets has the same budgets; a test compares them.
PRESETS: dict[str, Preset] = {
    # A page: small to load, still good at full screen.
    "web": Preset(50_000, 1024, remesh=False, remesh_project=0.9, texture_format="jpeg", normal_map=True),
    # An engine: a real-time hero object; PNG because importers recompress.
    "game": Preset(100_000, 2048, remesh=False, remesh_project=0.9, texture_format="png", normal_map=True),
    # A phone or AR quick look: small everywhere; every phone decodes JPEG.
    "mobile": Preset(15_000, 1024, remesh=False, remesh_project=0.9, texture_format="jpeg", normal_map=True),
    # A printer: one closed outer skin a voxel outside the surface, so that sheets have thickness, no void.
    "print": Preset(300_000, 1024, True, 0.0, texture_format="png", normal_map=False, outer_shell=True),
}
