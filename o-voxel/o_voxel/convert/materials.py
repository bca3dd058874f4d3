"""Meshes with materials as plain tensors: what attribute voxels are sampled from."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError
from .textures import Texture, square_power_of_two

_log = logging.getLogger(__name__)

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A glTF metallic-roughness material; a value is its texture (1 without one) times its factor.

    `base_color` RGBA, `metallic_roughness` RGB with roughness in G and metallic in B.
    """

    base_color_factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    metallic_factor: float = 1.0
    roughness_factor: float = 1.0
    emissive_factor: Color = (0.0, 0.0, 0.0)
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    base_color: Texture | None = None
    metallic_roughness: Texture | None = None
    emissive: Texture | None = None
    normal: Texture | None = None


@dataclass(frozen=True)
class Surface:
    """One mesh with one material: vertices and normals `[V, 3]`, faces `[F, 3]`, `uv [V, 2]` (v up).

    `colors`, float64 `[V, 4]`, multiply the material's base colour.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor
    uv: Tensor | None = None
    colors: Tensor | None = None
    material: Material = field(default_factory=Material)


NO_MATERIAL = Material(base_color_factor=(0.8, 0.8, 0.8, 1.0), metallic_factor=0.0, roughness_factor=0.5)


def load_surfaces(mesh: Any, device: torch.device | str = "cpu") -> list[Surface]:
    """Surfaces of a path, a `trimesh.Scene` (its transforms applied) or a `trimesh.Trimesh`.

    Raises:
        MeshError: nothing that has faces.
    """
    import trimesh

    if isinstance(mesh, (str, os.PathLike)):
        mesh = trimesh.load(Path(mesh))
    parts = mesh.dump() if isinstance(mesh, trimesh.Scene) else [mesh]
    meshes = [part for part in parts if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not meshes:
        raise MeshError("there is no mesh with faces to take attributes from")
    return [_surface(part, device) for part in meshes]


def _surface(mesh: Any, device: torch.device | str) -> Surface:
    """A trimesh mesh as a surface; vertex colours and plain materials are converted."""

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(np.nan_to_num(np.array(array, np.float64))).to(device)

    vertices = torch.from_numpy(np.array(mesh.vertices, np.float32)).to(device)
    faces = torch.from_numpy(np.array(mesh.faces, np.int64)).to(device)
    normals = tensor(mesh.vertex_normals)
    visual = mesh.visual
    if visual.kind == "texture" and visual.material is not None:
        source = visual.material
        if hasattr(source, "to_pbr"):
            textured = getattr(source, "image", None) is not None
            source = source.to_pbr()
            if textured:
                source.baseColorFactor = None  # its default grey is not meant to darken a picture
        uv = None if visual.uv is None or len(visual.uv) != len(vertices) else tensor(visual.uv)
        return Surface(vertices, faces, normals, uv, None, _material(source, device))
    if visual.kind in ("vertex", "face"):
        colors = tensor(visual.vertex_colors) / 255.0
        mode = "OPAQUE" if bool((colors[:, 3] == 1).all()) else "BLEND"
        material = Material(metallic_factor=0.0, alpha_mode=mode)
        return Surface(vertices, faces, normals, None, colors, material)
    return Surface(vertices, faces, normals, None, None, NO_MATERIAL)


def _material(source: Any, device: torch.device | str) -> Material:
    def texture(name: str, mode: str) -> Texture | None:
        image = getattr(source, name, None)
        if image is None:
            return None
        pixels = np.asarray(image.convert(mode))
        resized = square_power_of_two(pixels)
        if resized is not pixels:
            _log.info("%s of %s resized to %s", name, pixels.shape[:2], resized.shape[:2])
        return Texture(resized, device)

    def number(name: str, default: float) -> float:
        value = getattr(source, name, None)
        return default if value is None else float(value)

    factor = getattr(source, "baseColorFactor", None)
    rgba = [1.0] * 4 if factor is None else [float(v) / 255.0 for v in factor]
    emissive = getattr(source, "emissiveFactor", None)
    glow = [0.0] * 3 if emissive is None else [float(v) for v in emissive]
    return Material(
        base_color_factor=(rgba[0], rgba[1], rgba[2], rgba[3] if len(rgba) > 3 else 1.0),
        metallic_factor=number("metallicFactor", 1.0),
        roughness_factor=number("roughnessFactor", 1.0),
        emissive_factor=(glow[0], glow[1], glow[2]),
        alpha_mode=getattr(source, "alphaMode", None) or "OPAQUE",
        alpha_cutoff=number("alphaCutoff", 0.5),
        base_color=texture("baseColorTexture", "RGBA"),
        metallic_roughness=texture("metallicRoughnessTexture", "RGB"),
        emissive=texture("emissiveTexture", "RGB"),
        normal=texture("normalTexture", "RGB"),
    )
