"""The verdict on a file: what is wrong with it for someone who uses it, and the numbers behind that."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..mesh.arrays.edges import edge_table
from ..mesh.arrays.graph import connected_labels
from ..mesh.quality import MeshQuality, mesh_quality, weld
from ..raster import rasterize_uv
from .reading import load
from .scene import Part, Scene

BACK_PIXELS = 0.005
"""Share of visible pixels that may show a back before it is a fault: half a per cent, as single specks do."""

MOST_CHARTS = 400
LEAST_ATLAS_USE = 0.5
_ATLAS_SIDE = 1024
_AGAINST = 1e-6  # cosine below which a corner normal points away from its face's front


@dataclass(frozen=True)
class FileCheck:
    """What `check_file` finds; lengths in `scene.unit`.

    `charts` and `atlas_use` are None without texture coordinates, `normals_against` (faces with a corner
    normal that points behind them) without normals. `faults` are reasons to mend the file,
    `remarks` things to know.
    """

    file: str
    bytes: int
    scene: Scene
    quality: MeshQuality
    normals_against: int | None
    charts: int | None
    atlas_use: float | None
    faults: list[str]
    remarks: list[str]

    @property
    def sound(self) -> bool:
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "file": self.file,
            "bytes": self.bytes,
            "sound": self.sound,
            "faults": self.faults,
            "remarks": self.remarks,
            "unit": self.scene.unit,
            "mesh": self.quality.to_dict(),
            "normals_against": self.normals_against,
            "charts": self.charts,
            "atlas_use": self.atlas_use,
            "textures": {name: list(value) for name, value in self.scene.textures.items()},
            "alpha_modes": self.scene.alpha_modes,
            "double_sided": self.scene.double_sided,
            "lods": self.scene.lods,
            "colliders": self.scene.colliders,
        }

    def lines(self) -> list[str]:
        """The verdict in plain words."""
        q, unit = self.quality, self.scene.unit
        length = f" {unit}" if unit else " (the format has no unit)"
        lines = [
            f"{self.file}: {'sound' if self.sound else 'has faults'}",
            f"  {q.faces:,} faces, {q.vertices:,} vertices, {q.components:,} part{'s' * (q.components != 1)}",
            "  size " + " x ".join(f"{side:.4g}" for side in q.size) + length,
        ]
        if q.solid:
            lines.append(f"  a closed solid of {q.volume:.4g}{f' {unit}³' if unit else ''}")
        lines.append(f"  inside out: {q.inside_out:.1%} of the visible surface")
        if self.charts is not None and self.atlas_use is not None:
            lines.append(f"  {self.charts:,} charts on {self.atlas_use:.0%} of the atlas")
        for name, (width, height, kind) in self.scene.textures.items():
            lines.append(f"  {name}: {kind} {width} x {height}")
        if self.scene.lods:
            lines.append(
                "  levels of detail: " + ", ".join(f"{n:,}" for n in self.scene.lods) + " faces more"
            )
        if self.scene.colliders:
            lines.append(f"  collision shapes: {self.scene.colliders}")
        lines += [f"  FAULT  {text}" for text in self.faults]
        return lines + [f"  note   {text}" for text in self.remarks]


def check_file(path: str | os.PathLike[str]) -> FileCheck:
    """Read a GLB, OBJ, PLY, STL, OFF or 3MF and measure what it shows.

    Vertices at equal positions count as one, so seams of textures and normals are no cracks. Raises
    FormatError when it cannot be read, MeshError when a coordinate is not finite, OSError.
    """
    scene = load(path)
    vertices, faces = _joined(scene.parts)
    quality = mesh_quality(vertices, faces)
    against = [n for n in (_normals_against(part) for part in scene.parts) if n is not None]
    textured = [part for part in scene.parts if part.uvs is not None]
    charts, use = atlas(textured) if textured else (None, None)
    normals_against = sum(against) if against else None
    return FileCheck(
        file=Path(path).name,
        bytes=Path(path).stat().st_size,
        scene=scene,
        quality=quality,
        normals_against=normals_against,
        charts=charts,
        atlas_use=use,
        faults=_faults(quality, normals_against),
        remarks=_remarks(scene, quality, charts, use),
    )


def _joined(parts: list[Part]) -> tuple[torch.Tensor, torch.Tensor]:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float32)
    return torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int32))


def _normals_against(part: Part) -> int | None:
    """Faces with a corner whose normal points behind them, or is no direction at all."""
    if part.normals is None:
        return None
    a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    cosine = np.einsum("fkd,fd->fk", part.normals[part.faces], cross / np.maximum(length, 1e-300)[:, None])
    wrong = ~(cosine >= -_AGAINST).all(axis=1)  # a NaN compares false: wrong
    return int((wrong & (length > 0)).sum())


def atlas(parts: list[Part]) -> tuple[int, float]:
    """Charts (faces joined through edges that have one place on the atlas) and the share of texels in use."""
    charts, covered = 0, np.zeros((_ATLAS_SIDE, _ATLAS_SIDE), dtype=bool)
    for part in parts:
        assert part.uvs is not None
        place = weld(torch.from_numpy(part.vertices.astype(np.float32)))
        flat = weld(torch.from_numpy(np.pad(part.uvs, ((0, 0), (0, 1))).astype(np.float32)))
        _, corner = torch.unique(place * len(place) + flat, return_inverse=True)
        faces = corner[torch.from_numpy(part.faces)]
        table = edge_table(faces, len(place))
        pairs = torch.div(table.manifold_pairs, 3, rounding_mode="floor")
        charts += int(connected_labels(len(faces), pairs).max()) + 1
        inside = part.uvs - np.floor(part.uvs.min(axis=0)) if part.uvs.size else part.uvs
        uvs = torch.from_numpy(inside.astype(np.float32))
        drawn = rasterize_uv(uvs, torch.from_numpy(part.faces.astype(np.int32)), covered.shape, False)
        covered |= drawn.mask.numpy()
    return charts, float(covered.mean())


def _faults(quality: MeshQuality, normals_against: int | None) -> list[str]:
    q, found = quality, []
    if q.open_edges:
        found.append(f"not closed: {q.open_edges:,} open edges of {q.open_length:.3g} length in all")
    if q.crowded_edges:
        found.append(f"not manifold: {q.crowded_edges:,} edges shared by more than two faces")
    if q.bow_tie_vertices:
        found.append(f"not manifold: {q.bow_tie_vertices:,} vertices that join surfaces at a point")
    if q.twisted_edges:
        found.append(f"{q.twisted_edges:,} edges between faces that wind opposite ways")
    if q.inside_out > 0.5:
        found.append(f"inside out: {q.inside_out:.0%} of the visible surface shows its back")
    elif q.back_pixels > BACK_PIXELS:
        found.append(f"{q.back_pixels:.1%} of what is seen are back faces (holes, or faces turned inwards)")
    if normals_against:
        found.append(f"{normals_against:,} faces with a normal that points against them: they shade black")
    if q.zero_area_faces:
        found.append(f"{q.zero_area_faces:,} faces without area")
    return found


def _remarks(scene: Scene, q: MeshQuality, charts: int | None, use: float | None) -> list[str]:
    found = []
    if charts is not None and charts > max(MOST_CHARTS, q.faces // 10):
        found.append(f"{charts:,} charts: textures will bleed and cannot be edited by hand")
    if use is not None and use < LEAST_ATLAS_USE:
        found.append(f"only {use:.0%} of the atlas is used")
    if q.crumbs:
        found.append(f"{q.crumbs:,} loose crumbs, each below a thousandth of the area")
    if not scene.textures and charts is not None:
        found.append("texture coordinates but no texture")
    thin = min(q.size)
    if thin > 0 and math.isfinite(thin) and max(q.size) / thin > 1000:
        found.append("more than a thousand times as long as thick")
    return found
