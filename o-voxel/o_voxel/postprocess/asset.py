"""The finished asset: arrays, material and report, and the files they become."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ArgumentError
from ..mesh.hull import convex_hull
from ..mesh.quality import weld
from .material import Material, check_texture_format
from .placement import Placement, check_placement, to_z_up
from .report import MeshReport
from .writers.glb import Level, write_glb
from .writers.gltf_mesh import check_compression
from .writers.obj import obj_files, zipped
from .writers.plain import write_ply, write_stl
from .writers.threemf import write_3mf
from .writers.usdz import check_usdz, write_usdz

if TYPE_CHECKING:
    import trimesh

FILE_TYPES = ("glb", "usdz", "obj", "zip", "stl", "3mf", "ply")
PRINTED = ("stl", "3mf")

PRINT_SIZE = 100.0
"""Millimetres of the longest side of a file for printing, unless told otherwise."""

UNITS = {"glb": "m", "usdz": "m", "stl": "mm", "3mf": "mm"}
"""Of the formats that have one."""


@dataclass(frozen=True, eq=False)
class GlbAsset:
    """What `to_glb` returns, in glTF's frame: y up, right-handed, texture v downwards.

    `vertices` [V, 3], `normals` [V, 3], `uvs` [V, 2] float32, `faces` [F, 3] int32, `tangents` [V, 4] with a
    normal map, `see_through` [F] bool when faces blend with what lies behind. `mesh` is the same as a
    `trimesh.Trimesh`; `lower` are coarser levels of detail, for GLB alone; `export` writes files; `report`
    says what is in them.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uvs: np.ndarray
    tangents: np.ndarray | None
    see_through: np.ndarray | None
    material: Material
    texture_format: str
    report: MeshReport
    lower: tuple[GlbAsset, ...] = ()

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """With vertex normals and a PBRMaterial; its v runs upwards, as trimesh has it."""
        import trimesh
        from PIL import Image

        m = self.material
        pbr = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(m.base_color),
            metallicRoughnessTexture=Image.fromarray(m.orm),
            occlusionTexture=Image.fromarray(m.orm) if m.occluded else None,
            normalTexture=None if m.normal is None else Image.fromarray(m.normal),
            baseColorFactor=np.array([255, 255, 255, 255], dtype=np.uint8),
            metallicFactor=1.0,
            roughnessFactor=1.0,
            alphaMode=m.alpha_mode,
            alphaCutoff=0.5 if m.alpha_mode == "MASK" else None,
            doubleSided=m.double_sided,
        )
        uv = np.stack([self.uvs[:, 0], 1.0 - self.uvs[:, 1]], axis=1)
        return trimesh.Trimesh(
            self.vertices,
            self.faces,
            vertex_normals=self.normals,
            process=False,
            visual=trimesh.visual.TextureVisuals(uv=uv, material=pbr),
        )

    def export(
        self,
        path: str | os.PathLike[str] | None = None,
        file_type: str | None = None,
        *,
        texture_format: str | None = None,
        extension_webp: bool | None = None,
        size_mm: float = PRINT_SIZE,
        size_m: float | None = None,
        pivot: str = "origin",
        collision: bool = False,
        compress: str = "none",
        quantize: bool = False,
        name: str | None = None,
    ) -> bytes:
        """The asset as bytes of a `file_type` (else the path's suffix, else glb), written to `path` if given.

        glb; usdz (needs usd-core); obj (with a path: .obj, .mtl and pictures side by side, the bytes are the
        .obj's; without: a zip), zip; stl and 3mf (welded, standing on z = 0, the longest side `size_mm`
        millimetres); ply (welded). 3mf and ply have colours at the vertices. Up is what a format's readers
        take for it: y in glb, usdz and obj, z in stl, 3mf and ply. `size_m` sets the longest side of all but
        stl and 3mf, in metres where the format has a unit; `pivot` what lies at their origin: origin (the
        decoder's), base (the middle of the underside) or center. `collision` adds a convex hull to a glb.
        `texture_format` overrides the asset's; `extension_webp` is the reference's name for webp (True) or
        png (False); `compress` (none, meshopt, draco) and `quantize` make a glb smaller, for readers that
        know the extensions; `name` is what a glb calls the object. The report's `bytes` and `size` get what
        was written. Raises ArgumentError.
        """
        kind = (file_type or (Path(path).suffix if path is not None else "glb")).lower().lstrip(".")
        check_file_type(kind, compress)
        check_placement(size_mm, pivot)
        place = Placement(self.vertices, *((size_mm, "base") if kind in PRINTED else (size_m, pivot)))
        vertices = place(self.vertices)
        self.report.size[kind] = (np.ptp(vertices, axis=0).tolist(), UNITS.get(kind, ""))
        if kind in PRINTED:
            self.report.solid[kind] = self.report.printed(place.scale)
        pictures = texture_format or self.texture_format
        if texture_format is None and extension_webp is not None:
            pictures = "webp" if extension_webp else "png"
        check_texture_format(pictures)
        if kind in ("obj", "zip"):
            return self._export_obj(vertices, path, kind, pictures)
        arrays = (vertices, self.faces, self.normals, self.uvs)
        if kind == "glb":
            data = self._glb(place, pictures, collision, compress, quantize, name or "asset")
        elif kind == "usdz":
            data = write_usdz(*arrays, self.see_through, self.material, pictures)
        else:
            data = self._welded(kind, to_z_up(vertices))
        if path is not None:
            Path(path).write_bytes(data)
        self.report.bytes[kind] = len(data)
        return data

    def _glb(
        self, place: Placement, pictures: str, collision: bool, compress: str, quantize: bool, name: str
    ) -> bytes:
        levels = [
            Level(place(a.vertices), a.faces, a.normals, a.uvs, a.tangents, a.see_through, a.material)
            for a in (self, *self.lower)
        ]
        hull = convex_hull(levels[0].vertices) if collision else None
        return write_glb(levels, pictures, hull, compress, quantize, name)

    def _welded(self, kind: str, vertices: np.ndarray) -> bytes:
        """stl, 3mf or ply: the welded shape of vertices [V, 3], z up."""
        faces = self._welded_faces()
        if kind == "stl":
            return write_stl(vertices, faces)
        used, compact = np.unique(faces, return_inverse=True)
        vertices, corners = vertices[used], compact.reshape(-1, 3)
        colours = self._vertex_colours(used)
        if kind == "3mf":
            return write_3mf(vertices, corners, colours[:, :3])
        return write_ply(vertices, corners, to_z_up(self.normals[used]), colours)

    def _export_obj(
        self, vertices: np.ndarray, path: str | os.PathLike[str] | None, kind: str, pictures: str
    ) -> bytes:
        stem = "asset" if path is None else Path(path).stem
        arrays = (vertices, self.faces, self.normals, self.uvs)
        files = obj_files(stem, *arrays, self.material, pictures)
        self.report.bytes["obj"] = sum(len(data) for data in files.values())
        if path is None or kind == "zip":
            archive = zipped(files)
            if path is not None:
                Path(path).write_bytes(archive)
            return archive
        for name, data in files.items():
            (Path(path).parent / name).write_bytes(data)
        return files[f"{stem}.obj"]

    def _welded_faces(self) -> np.ndarray:
        faces = weld(torch.from_numpy(self.vertices)).numpy()[self.faces]
        return faces[(faces != np.roll(faces, -1, axis=1)).all(axis=1)]

    def _vertex_colours(self, used: np.ndarray) -> np.ndarray:
        """The texture's colour [U, 4] uint8 at some vertices."""
        height, width = self.material.base_color.shape[:2]
        column = np.clip((self.uvs[used, 0] * width).astype(int), 0, width - 1)
        row = np.clip((self.uvs[used, 1] * height).astype(int), 0, height - 1)
        colours = self.material.base_color[row, column].copy()
        if self.material.alpha_mode == "OPAQUE":
            colours[:, 3] = 255
        return colours


def check_file_type(kind: str, compress: str = "none") -> None:
    """Raises ArgumentError for what is unknown, or needs a package that is not installed."""
    check_compression(compress)
    if kind not in FILE_TYPES:
        raise ArgumentError(f"cannot export {kind!r}: one of {', '.join(FILE_TYPES)}")
    if kind == "usdz":
        check_usdz()
