"""A mesh as a GLB document, and the triangles that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..check.glb import GlbFile
from ..errors import MeshError
from ..postprocess.writers.gltf_mesh import Binary, Part, plain_mesh

UV_SLACK = 1e-3
"""How far beyond 0..1 texture coordinates may lie: exporters round."""

LEAST_AREA = 1e-6


@dataclass(frozen=True)
class Surface:
    """Triangles of one material in the scene's frame (y up): `vertices` [V, 3] float64, `faces` [F, 3] int64,
    `uvs` [V, 2] float32 (v down) where the file has them. `material` is the document's index, None for
    none."""

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray | None
    material: int | None

    @property
    def uv_area(self) -> float:
        """Of its charts on the texture, overlaps counted each time."""
        if self.uvs is None:
            return 0.0
        a, b, c = (self.uvs[self.faces[:, k]].astype(np.float64) for k in range(3))
        u, v = b - a, c - a
        return float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / 2)


@dataclass(frozen=True)
class MeshFile:
    """`glb` holds positions, texture coordinates and whatever else the file says (skins, animations, names);
    `surfaces` are what its default scene shows. `notes` say in words what a person should know."""

    glb: GlbFile
    surfaces: list[Surface]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def vertices(self) -> np.ndarray:
        """Of all surfaces, [V, 3] float64."""
        return np.concatenate([surface.vertices for surface in self.surfaces])

    @cached_property
    def faces(self) -> np.ndarray:
        """Of all surfaces, [F, 3] int64 into `vertices`."""
        starts = np.cumsum([0, *(len(surface.vertices) for surface in self.surfaces)])
        return np.concatenate(
            [surface.faces + start for surface, start in zip(self.surfaces, starts, strict=False)]
        )

    def check_uvs(self) -> None:
        """Raises MeshError for texture coordinates that cannot be painted on: of some parts only, outside
        0..1 or without any area."""
        found = [surface for surface in self.surfaces if surface.uvs is not None]
        if found and not self.has_uvs:
            raise MeshError(
                f"{len(self.surfaces) - len(found)} of {len(self.surfaces)} parts have no texture "
                f"coordinates, "
                "the others have; ask for new ones for all (new_uvs)"
            )
        for surface in found:
            assert surface.uvs is not None
            used = surface.uvs[np.unique(surface.faces)]
            low, high = used.min(axis=0), used.max(axis=0)
            if (low < -UV_SLACK).any() or (high > 1 + UV_SLACK).any():
                raise MeshError(
                    f"the texture coordinates reach from ({low[0]:.4g}, {low[1]:.4g}) to ({high[0]:.4g}, "
                    f"{high[1]:.4g}), outside 0..1, where a texture repeats and no texel belongs to one "
                    f"place; "
                    "ask for new ones (new_uvs)"
                )
        if found and sum(surface.uv_area for surface in found) < LEAST_AREA:
            raise MeshError(
                "the texture coordinates span no area: every face lies on one point or line of the texture; "
                "ask for new ones (new_uvs)"
            )

    @property
    def has_uvs(self) -> bool:
        """Whether every surface has texture coordinates."""
        return all(surface.uvs is not None for surface in self.surfaces)


def new_file(
    surfaces: list[Surface], normals: list[np.ndarray | None], double_sided: bool, notes: list[str]
) -> MeshFile:
    """A document with one node and a primitive a surface; positions are stored as float32."""
    binary, primitives = Binary(), []
    for surface, normal in zip(surfaces, normals, strict=True):
        attributes = {"POSITION": surface.vertices}
        if normal is not None:
            attributes["NORMAL"] = normal
        if surface.uvs is not None:
            attributes["TEXCOORD_0"] = surface.uvs
        (primitive,) = plain_mesh(binary, attributes, [Part(surface.faces, "OPAQUE")]).primitives
        primitives.append(
            primitive if surface.material is None else primitive | {"material": surface.material}
        )
    count = max((s.material for s in surfaces if s.material is not None), default=-1) + 1
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "o-voxel"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "asset"}],
        "meshes": [{"name": "asset", "primitives": primitives}],
        "materials": [{"doubleSided": double_sided} for _ in range(count)],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": binary.buffers(),
    }
    return MeshFile(GlbFile(document, bytes(binary.data)), surfaces, notes)


def unwrapped(file: MeshFile, texture_size: int) -> MeshFile:
    """All surfaces as one with new texture coordinates; every position stays, vertices are cut at seams."""
    from ..mesh.charts.unwrap import unwrap
    from ..mesh.quality import weld
    from ..postprocess.pipeline import shaded_layout

    points = torch.from_numpy(file.vertices.astype(np.float32))
    welded = weld(points)[torch.from_numpy(file.faces)]  # faces that share no vertex would be charts each
    welded = welded[(welded != welded.roll(1, dims=1)).all(dim=1)]
    if not len(welded):
        raise MeshError(f"all {len(file.faces):,} faces are degenerate: two of their corners are one point")
    used, corners = torch.unique(welded, return_inverse=True)
    mesh = (points[used], corners.int())
    layout = shaded_layout(mesh, unwrap(*mesh, texture_size=texture_size), False)
    surface = Surface(
        layout.vertices.numpy().astype(np.float64),
        layout.faces.numpy().astype(np.int64),
        layout.uvs.numpy(),
        0,
    )
    sides = [entry.get("doubleSided", False) for entry in file.glb.document.get("materials", [])]
    return new_file([surface], [layout.normals.numpy()], any(sides) or not sides, file.notes)
