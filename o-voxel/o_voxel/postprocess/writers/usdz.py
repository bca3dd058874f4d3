"""USDZ, as AR Quick Look on phones opens it; written with OpenUSD (package usd-core, the extra `[usd]`).

A binary layer and its pictures in an uncompressed zip whose files begin at multiples of 64 bytes; metres, y
up, UsdPreviewSurface. See OpenUSD's "Usdz File Format Specification" and "UsdPreviewSurface
Specification".
"""

from __future__ import annotations

import importlib.util
import struct
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError
from ..material import Material
from ..textures.encode import SUFFIXES
from ..translucency import parts_by_alpha


def check_usdz() -> None:
    """Raises ArgumentError where OpenUSD is not installed."""
    if importlib.util.find_spec("pxr") is None:
        raise ArgumentError("writing usdz needs the package usd-core: pip install usd-core")


def write_usdz(
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    uvs: np.ndarray,
    see_through: np.ndarray | None,
    material: Material,
    texture_format: str,
) -> bytes:
    """USDZ bytes; arguments as of `write_glb`. Needs usd-core, or raises ArgumentError."""
    check_usdz()
    from pxr import Usd, UsdGeom

    encoded = material.encoded(texture_format if texture_format in ("png", "jpeg") else "jpeg")
    with tempfile.TemporaryDirectory(prefix="usdz-") as folder:
        files = {name: f"{name}{SUFFIXES[kind]}" for name, (kind, _) in encoded.items()}
        layer = str(Path(folder) / "asset.usdc")
        stage = Usd.Stage.CreateNew(layer)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, "/asset")
        Usd.ModelAPI(root).SetKind("component")
        stage.SetDefaultPrim(root.GetPrim())
        for number, (mode, part) in enumerate(parts_by_alpha(vertices, faces, see_through, material)):
            used, corners = np.unique(part, return_inverse=True)
            mesh = _mesh(stage, number, vertices[used], corners, normals[used], uvs[used])
            mesh.CreateDoubleSidedAttr(material.double_sided)
            _bind(stage, mesh, number, mode, files, material)
        stage.GetRootLayer().Save()
        parts = {"asset.usdc": Path(layer).read_bytes()}
    return _package(parts | {files[name]: data for name, (_, data) in encoded.items()})


def _package(files: dict[str, bytes]) -> bytes:
    """A zip without compression, each file at a multiple of 64 bytes; the first is the scene."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            start = target.tell() + 30 + len(name)  # after the local header
            padding = -(start + 4) % 64
            entry.extra = struct.pack("<HH", 0x1986, padding) + b"\0" * padding
            archive.writestr(entry, data)
    return target.getvalue()


def _mesh(
    stage: Any, number: int, points: np.ndarray, corners: np.ndarray, normals: np.ndarray, uvs: np.ndarray
) -> Any:
    from pxr import Sdf, UsdGeom, Vt

    mesh = UsdGeom.Mesh.Define(stage, f"/asset/mesh_{number}")
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(points, np.float32)))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray(len(corners.reshape(-1)) // 3, 3))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(corners.reshape(-1).astype(np.int32)))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(normals, np.float32)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    mesh.CreateExtentAttr([tuple(low), tuple(high)])
    upwards = np.stack([uvs[:, 0], 1.0 - uvs[:, 1]], axis=1).astype(np.float32)
    coordinates = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
    )
    coordinates.Set(Vt.Vec2fArray.FromNumpy(upwards))
    return mesh


def _bind(stage: Any, mesh: Any, number: int, mode: str, files: dict[str, str], material: Material) -> None:
    """A UsdPreviewSurface that reads the pictures, bound to the mesh."""
    from pxr import Sdf, UsdShade

    types, path = Sdf.ValueTypeNames, f"/asset/material_{number}"
    look = UsdShade.Material.Define(stage, path)
    surface = UsdShade.Shader.Define(stage, f"{path}/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    reader = UsdShade.Shader.Define(stage, f"{path}/st")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    coordinates = reader.CreateOutput("result", types.Float2)

    def texture(name: str, space: str) -> Any:
        shader = UsdShade.Shader.Define(stage, f"{path}/{name}")
        shader.CreateIdAttr("UsdUVTexture")
        shader.CreateInput("file", types.Asset).Set(files[name])
        shader.CreateInput("st", types.Float2).ConnectToSource(coordinates)
        shader.CreateInput("sourceColorSpace", types.Token).Set(space)
        for axis in ("wrapS", "wrapT"):
            shader.CreateInput(axis, types.Token).Set("clamp")
        return shader

    def connect(target: str, kind: Any, shader: Any, output: str) -> None:
        source = shader.CreateOutput(output, types.Float3 if output == "rgb" else types.Float)
        surface.CreateInput(target, kind).ConnectToSource(source)

    colour, orm = texture("base_color", "sRGB"), texture("metallic_roughness", "raw")
    connect("diffuseColor", types.Color3f, colour, "rgb")
    connect("roughness", types.Float, orm, "g")
    connect("metallic", types.Float, orm, "b")
    if material.occluded:
        connect("occlusion", types.Float, orm, "r")
    if mode != "OPAQUE" and material.visible_base_color.shape[2] == 4:
        connect("opacity", types.Float, colour, "a")
        if mode == "MASK":
            surface.CreateInput("opacityThreshold", types.Float).Set(0.5)
    if "normal" in files:
        normal = texture("normal", "raw")
        normal.CreateInput("scale", types.Float4).Set((2.0, 2.0, 2.0, 1.0))
        normal.CreateInput("bias", types.Float4).Set((-1.0, -1.0, -1.0, 0.0))
        connect("normal", types.Normal3f, normal, "rgb")
    look.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(look)
