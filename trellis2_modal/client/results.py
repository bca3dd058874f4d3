"""What a finished job gives: bytes, numbers, and ways to put them on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..durable import write_atomically
from ..protocol.replies import ASSET_MEDIA_TYPES, Notice
from .stages import size_text
from .stats import AssetStats, ExportReport

EXTENSIONS = {"glb": ".glb", "usdz": ".usdz", "obj": ".zip", "stl": ".stl", "3mf": ".3mf", "ply": ".ply"}
"""File name ending by format; an obj comes as a zip with its textures."""


def _text(result: GenerateResult | ExtractResult, facts: str, **files: bytes | None) -> str:
    """What a session shows of a result: its numbers, and how large its files are."""
    sizes = ", ".join(f"{name} {size_text(len(data))}" for name, data in files.items() if data is not None)
    return f"<{type(result).__name__} of {result.job}: {facts}; {sizes}>"


@dataclass(frozen=True, repr=False)
class GenerateResult:
    """An asset as the client keeps it: `state` is all that later extractions need, `asset` the file that
    `export` asked for."""

    job: str
    seed: int
    resolution: int
    state: bytes
    video: bytes | None = None
    preview: bytes | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: list[Notice] = field(default_factory=list)
    variants: tuple[GenerateResult, ...] = ()
    """All of them where several were asked for, this one first."""

    variant: int = 1
    """Which of its job's variants it is."""

    asset: bytes | None = None

    def __repr__(self) -> str:
        facts = f"seed {self.seed}, resolution {self.resolution}"
        if self.variants:
            facts += f", the first of {len(self.variants)} variants"
        return _text(self, facts, state=self.state, video=self.video, preview=self.preview, asset=self.asset)

    def save(self, folder: str | os.PathLike[str], name: str = "asset") -> list[Path]:
        """Write `name`.state.lz4, .mp4, .webp and the exported file (those that exist) into a folder."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        files = {".state.lz4": self.state, ".mp4": self.video, ".webp": self.preview}
        if self.asset is not None:
            files[EXTENSIONS[self.settings["export"]["format"]]] = self.asset
        return [write_atomically(root / (name + end), data) for end, data in files.items() if data]


@dataclass(frozen=True)
class Matte:
    """PNG with transparency of a picture's subject, and what a person should know of the picture."""

    png: bytes = field(repr=False)
    warnings: list[Notice] = field(default_factory=list)


def first_still(asset: GenerateResult | TextureResult, mode: str) -> bytes | None:
    """The first view of a render mode on the sheet of stills, as PNG; None when there is no such view."""
    import io

    from PIL import Image

    layout = AssetStats.of(asset.stats).preview
    if asset.preview is None or layout is None or mode not in layout.modes:
        return None
    size, row = layout.size, layout.modes.index(mode)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(asset.preview)) as sheet:
        sheet.crop((0, row * size, size, (row + 1) * size)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True, repr=False)
class ExtractResult:
    """A file in the format that was asked for, with the mesh report."""

    job: str
    data: bytes
    format: str = "glb"
    settings: dict[str, Any] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: list[Notice] = field(default_factory=list)

    def __repr__(self) -> str:
        faces = ExportReport.of(self.report).faces
        return _text(self, self.format + (f", {faces:,} faces" if faces else ""), data=self.data)

    @property
    def media_type(self) -> str:
        return ASSET_MEDIA_TYPES[self.format]

    @property
    def report(self) -> dict[str, Any]:
        """Faces, watertightness, textures and the like; empty when the service sent none."""
        report = self.stats.get("report")
        return report if isinstance(report, dict) else {}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file."""
        return write_atomically(path, self.data)


@dataclass(frozen=True, repr=False)
class TextureResult(ExtractResult):
    """A mesh with new textures, as a GLB, and its preview."""

    seed: int = 0
    video: bytes | None = None
    preview: bytes | None = None


Result: TypeAlias = GenerateResult | ExtractResult
"""What a finished job gives, by its kind."""
