"""What an export weighs and whether it is sound: the mesh report and the clock of the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..mesh.arrays.edges import edge_table
from ..mesh.arrays.graph import connected_labels
from ..mesh.quality import visible_backs, weld

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Topology:
    """Counts after welding vertices at exactly equal positions, so UV seams do not count as borders."""

    components: int
    boundary_edges: int
    non_manifold_edges: int
    watertight: bool


@dataclass
class MeshReport:
    """A report with every export. Lengths are mesh units in the file's frame (glTF: y up); seconds are
    wall time."""

    faces: int
    vertices: int
    components: int
    boundary_edges: int
    non_manifold_edges: int
    watertight: bool
    charts: int
    atlas_use: float
    bounding_box: tuple[tuple[float, float, float], tuple[float, float, float]]
    textures: dict[str, tuple[int, int]]
    alpha_mode: str
    double_sided: bool
    source_vertices: int
    source_faces: int
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    lods: list[int] = field(default_factory=list)  # faces of each coarser level
    size: dict[str, tuple[list[float], str]] = field(default_factory=dict)  # of each file, with its unit
    volume: float | None = None  # of a closed mesh
    inside_out: float | None = None  # share of the visible area whose faces are seen from behind
    thinnest: float | None = None  # of a print: all but a hundredth of its walls are thicker
    solid: dict[str, dict[str, float]] = field(default_factory=dict)  # of each file for printing, cm3 and mm

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for JSON."""
        return asdict(self) | {
            "bounding_box": [list(corner) for corner in self.bounding_box],
            "textures": {name: list(size) for name, size in self.textures.items()},
        }

    def printed(self, scale: float) -> dict[str, float]:
        """Volume and thinnest wall at `scale` millimetres for each mesh unit, where they are known."""
        found = {}
        if self.volume is not None:
            found["volume_cm3"] = self.volume * scale**3 / 1000
        if self.thinnest is not None:
            found["wall_mm"] = self.thinnest * scale
        return found

    def _extent(self, kind: str) -> str:
        sides, unit = self.size.get(kind, ([], ""))
        return " x ".join(f"{side:.4g}" for side in sides) + f" {unit}".rstrip() + ", " if sides else ""

    def summary(self) -> str:
        """The report in plain words."""
        skin = (
            "watertight"
            if self.watertight
            else f"open along {self.boundary_edges} edges"
            if self.boundary_edges
            else "closed"
        )
        if self.non_manifold_edges:
            skin += f", {self.non_manifold_edges} edges shared by more than two faces"
        if self.inside_out is not None:
            skin += f", {self.inside_out:.1%} of the visible surface inside out"
        size = " x ".join(f"{b - a:.3g}" for a, b in zip(*self.bounding_box, strict=True))
        pictures = ", ".join(f"{name} {w} x {h}" for name, (w, h) in self.textures.items())
        lines = [
            f"{self.faces:,} faces and {self.vertices:,} vertices (from {self.source_faces:,} faces), "
            f"{_count(self.components, 'part')}, {skin}.",
            f"Size {size}. {_count(self.charts, 'chart')} cover {self.atlas_use:.0%} of the atlas.",
            f"Textures: {pictures}.",
            f"Transparency {self.alpha_mode.lower()}, "
            f"{'both sides' if self.double_sided else 'only front sides'} drawn.",
        ]
        lines += [f"{kind}: {self._extent(kind)}{size / 1e6:.2f} MB." for kind, size in self.bytes.items()]
        lines += [
            f"{kind}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()) + "."
            for kind, found in self.solid.items()
        ]
        steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())
        lines.append(f"Seconds: {steps}; {sum(self.seconds.values()):.2f} in all.")
        return "\n".join(lines + [f"Note: {note}." for note in self.notes])


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def topology(vertices: Tensor | np.ndarray, faces: Tensor | np.ndarray) -> Topology:
    """Components, borders and closedness of vertices [V, 3], faces [F, 3] after welding equal positions."""
    points = torch.as_tensor(vertices)
    welded = weld(points)[torch.as_tensor(faces).long()]  # [F, 3]
    welded = welded[(welded != welded.roll(1, dims=1)).all(dim=1)]
    if not len(welded):
        return Topology(components=0, boundary_edges=0, non_manifold_edges=0, watertight=False)
    table = edge_table(welded, len(points))
    components = len(torch.unique(connected_labels(len(points), table.edges)[welded[:, 0]]))
    boundary, crowded = int((table.counts == 1).sum()), int((table.counts > 2).sum())
    return Topology(components, boundary, crowded, boundary == 0 and crowded == 0)


def inside_out(vertices: Tensor, faces: Tensor) -> float:
    """Share of the area that can be seen whose faces are seen from behind, in few and small pictures."""
    return visible_backs(vertices, faces, views=12, picture=256)[1]


class StepTimes:
    """Announces steps to `progress(name, index, count)` and times them; an exception from progress
    cancels."""

    def __init__(self, names: tuple[str, ...], progress: Progress | None, device: torch.device) -> None:
        self.names, self.progress, self.device = names, progress, device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(name, self.names.index(name), len(self.names))
        start = self._now()
        yield
        self.seconds[name] = self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else a step's work is billed to the next
        return time.perf_counter()
