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
from ..mesh.quality import weld
from .export_3mf import write_3mf
from .export_glb import write_glb
from .export_obj import obj_files, zipped
from .export_plain import write_ply, write_stl
from .export_usdz import check_usdz, write_usdz
from .material import Material, check_texture_format
from .report import MeshReport

if TYPE_CHECKING:
    import trimesh

FILE_TYPES = ("glb", "usdz", "obj", "zip", "stl", "3mf", "ply")


@dataclass(frozen=True, eq=False)
class GlbAsset:
    """What `to_glb` returns, in glTF's frame: y up, right-handed, texture v downwards.

    `vertices` [V, 3], `normals` [V, 3], `uvs` [V, 2] float32, `faces` [F, 3] int32, `tangents` [V, 4] with a
    normal map, `see_through` [F] bool when faces blend with what lies behind. `mesh` is the same as a
    `trimesh.Trimesh`; `export` writes files; `report` says what is in them.
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

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """With vertex normals and a PBRMaterial; its v runs upwards, as trimesh has it."""
        import trimesh
        from PIL import Image

        m = self.material
        pbr = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(m.base_color),
            metallicRoughnessTexture=Image.fromarray(m.orm),
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
        scale: float | None = None,
        size_mm: float | None = None,
    ) -> bytes:
        """The asset as bytes of a `file_type` (else the path's suffix, else glb), written to `path` if given.

        glb; usdz (metres; needs usd-core); obj (with a path: .obj, .mtl and pictures side by side, the bytes
        are the .obj's; without: a zip), zip; stl, 3mf and ply: z up, welded, times `scale` (3mf is in
        millimetres: 100 unless told otherwise), or stl and 3mf with their longest side `size_mm` long; 3mf
        and ply have colours at the vertices. `texture_format` overrides the asset's; `extension_webp` is the
        reference's name for webp (True) or png (False). The report's `bytes` gets the size. Raises
        ArgumentError.
        """
        kind = (file_type or (Path(path).suffix if path is not None else "glb")).lower().lstrip(".")
        check_file_type(kind)
        pictures = texture_format or self.texture_format
        if texture_format is None and extension_webp is not None:
            pictures = "webp" if extension_webp else "png"
        check_texture_format(pictures)
        if kind in ("obj", "zip"):
            return self._export_obj(path, kind, pictures)
        arrays = (self.vertices, self.faces, self.normals, self.uvs)
        if kind == "glb":
            data = write_glb(*arrays, self.tangents, self.see_through, self.material, pictures)
        elif kind == "usdz":
            data = write_usdz(*arrays, self.see_through, self.material, pictures)
        else:
            data = self._solid(kind, self._scale(kind, scale, size_mm))
        if path is not None:
            Path(path).write_bytes(data)
        self.report.bytes[kind] = len(data)
        return data

    def _scale(self, kind: str, scale: float | None, size_mm: float | None) -> float:
        for name, value in (("scale", scale), ("size_mm", size_mm)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ArgumentError(f"{name} must be positive, got {value}")
        if scale is not None and size_mm is not None:
            raise ArgumentError("give scale or size_mm, not both")
        if size_mm is not None and kind != "ply":
            return size_mm / float(np.ptp(self.vertices, axis=0).max())
        return scale if scale is not None else (100.0 if kind == "3mf" else 1.0)

    def _solid(self, kind: str, scale: float) -> bytes:
        """stl, 3mf or ply: the welded shape, z up."""
        faces = self._welded_faces()
        if kind == "stl":
            return write_stl(to_z_up(self.vertices) * scale, faces)
        used, compact = np.unique(faces, return_inverse=True)
        vertices, corners = to_z_up(self.vertices[used]) * scale, compact.reshape(-1, 3)
        colours = self._vertex_colours(used)
        if kind == "3mf":
            return write_3mf(vertices, corners, colours[:, :3])
        return write_ply(vertices, corners, to_z_up(self.normals[used]), colours)

    def _export_obj(self, path: str | os.PathLike[str] | None, kind: str, pictures: str) -> bytes:
        stem = "asset" if path is None else Path(path).stem
        arrays = (self.vertices, self.faces, self.normals, self.uvs)
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


def check_file_type(kind: str) -> None:
    """Raises ArgumentError for a type that is unknown, or needs a package that is not installed."""
    if kind not in FILE_TYPES:
        raise ArgumentError(f"cannot export {kind!r}: one of {', '.join(FILE_TYPES)}")
    if kind == "usdz":
        check_usdz()


def to_y_up(vectors: np.ndarray) -> np.ndarray:
    """(x, y, z) to (x, z, -y): the decoder's z up to glTF's y up, a rotation."""
    return np.stack([vectors[:, 0], vectors[:, 2], -vectors[:, 1]], axis=1)


def to_z_up(vectors: np.ndarray) -> np.ndarray:
    """The inverse of `to_y_up`."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)
